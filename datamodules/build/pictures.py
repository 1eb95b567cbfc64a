"""Pictures on their way into a shard: checked, and made smaller or cut to tiles where that is asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.build.prepare import Parts, Prepared, Preparer
from datamodules.build.source import Entry

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
"""Extensions of files that are taken as pictures."""
KEPT = ("jpg", "jpeg", "png", "webp")
"""Those that a training run decodes; the others are written as PNG."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What may be inside, whatever a file is called: PIL would start Ghostscript for an EPS named .png."""
LOSSY = ("jpg", "jpeg", "webp")


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """What `mmtok shards build` takes for pictures."""

    size: int | None = None
    """Shorter side in pixels; larger pictures are made smaller, smaller ones are left alone. None keeps the files."""
    tile: int | None = None
    """Cut each picture (after `size`) into squares of this many pixels a side. All tiles of one stay in one set."""
    quality: int = 95
    """JPEG quality of what `size` or `tile` re-encodes."""

    def __post_init__(self) -> None:
        for name in ("size", "tile"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality} must be 1 to 100.")
        if self.size and self.tile and self.size < self.tile:
            raise ValueError(f"size={self.size} leaves no room for tile={self.tile}. Use a size of at least the tile.")


class Pictures(Preparer):
    """Pictures are kept as they are, unless `size` or `tile` asks for something else."""

    kind, noun = "images", "pictures"
    extensions, options = PICTURES, PictureOptions
    chosen: PictureOptions

    def prepare(self, entry: Entry) -> Prepared:
        return Prepared(prepare(entry, self.chosen.size, self.chosen.tile, self.chosen.quality), {})

    def shown(self) -> dict[str, Any]:
        shown = super().shown()
        if not (self.chosen.size or self.chosen.tile):
            shown.pop("quality")
        return shown


def check(data: bytes) -> None:
    """Decode a picture to its last byte, which is what finds a truncated one; `verify()` of PIL reads headers only.

    Raises:
        OSError: it does not decode.
    """
    with open_picture(data, FORMATS[:3]) as picture:
        # A JPEG is decoded at an eighth of its size: every coefficient is still read, for a fraction of the time.
        picture.draft(None, (picture.width // 8 or 1, picture.height // 8 or 1))
        picture.load()


def open_picture(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image:
    """Bytes -> a PIL picture of one of the formats, not decoded yet.

    Raises:
        OSError: it is no picture, or one so large that it must be an attack.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise OSError(str(error)) from error
    except UnidentifiedImageError as error:  # its text is an address in memory
        raise OSError("no picture in any format that is known here") from error
    if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or 2**27):
        raise OSError(f"{picture.width} x {picture.height} pixels is too large to be a picture")
    return picture


def on_white(picture: Image) -> Image:
    """The picture as RGB or L, what is transparent in it on white. `convert("RGB")` would show what alpha hides."""
    from PIL import Image

    if picture.mode in ("RGB", "L"):
        return picture
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(ground, picture).convert("RGB")
    if picture.mode.startswith("I"):  # 16 bits a pixel: PIL's own conversion clips at 255 instead of scaling
        return Image.fromarray((np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8))
    return picture.convert("L" if picture.mode in ("1", "F") else "RGB")


def shrink(picture: Image, size: int) -> Image:
    """Shorter side down to `size`, keeping the proportions; smaller pictures are left alone."""
    from PIL import Image

    short = min(picture.size)
    if short <= size:
        return picture
    scaled = (round(picture.width * size / short), round(picture.height * size / short))
    return picture.resize(scaled, Image.Resampling.LANCZOS)


def tiles(picture: Image, tile: int) -> Iterator[tuple[str, Image]]:
    """Every whole tile of a grid centred on the picture, with its name `ROW-COLUMN`; none where it is too small."""
    rows, columns = picture.height // tile, picture.width // tile
    top, left = (picture.height - rows * tile) // 2, (picture.width - columns * tile) // 2
    for row in range(rows):
        for column in range(columns):
            x, y = left + column * tile, top + row * tile
            yield f"{row}-{column}", picture.crop((x, y, x + tile, y + tile))


def encode(picture: Image, extension: str, quality: int = 95) -> bytes:
    """A picture -> bytes: JPEG without chroma subsampling, or PNG."""
    buffer = io.BytesIO()
    if extension == "png":
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def prepare(entry: Entry, size: int | None, tile: int | None, quality: int) -> list[tuple[str, Parts]]:
    """Read an entry and return its samples (key, parts): one as it is, or re-encoded, or one a tile.

    Raises:
        OSError: the picture is damaged, or smaller than a tile.
    """
    from PIL import ImageOps

    parts = entry.read()
    extension = next((name for name in parts if name in PICTURES), None)
    if extension is None:
        return [(entry.key, parts)]
    if size is None and tile is None and extension in KEPT:
        check(parts[extension])
        return [(entry.key, parts)]
    with open_picture(parts.pop(extension)) as source:
        # The turn a camera noted would be lost with the rest of the header.
        picture = on_white(ImageOps.exif_transpose(source))
    small = picture if size is None else shrink(picture, size)
    target = "jpg" if extension in LOSSY else "png"
    if tile is None:
        return [(entry.key, {target: encode(small, target, quality), **parts})]
    cut = [(f"{entry.key}-{name}", piece) for name, piece in tiles(small, tile)]
    if not cut:
        raise OSError(f"{small.width} x {small.height} pixels hold no tile of {tile}")
    return [(key, {target: encode(piece, target, quality), **parts}) for key, piece in cut]
