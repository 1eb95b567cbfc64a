"""Bytes to arrays, by extension, from a whitelist. What is not on it is refused: nothing is ever unpickled or executed.

WebDataset's default decoders unpickle `.pkl`, `.pyd` and `.pth` of whoever made the tar, also behind `.gz`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from datamodules.shardindex import DecodeError
from datamodules.sound import SOUNDS, Sound, read_sound

MAX_PIXELS = 64_000_000
"""Of a picture: above, a few kilobytes could ask for gigabytes."""
SMALL_JPEG = 1 << 16
"""Bytes up to which a JPEG takes the short way; above, decoding itself takes the time and both ways are alike."""
MAX_TEXT = 16 << 20
MAX_ARRAY = 1 << 30
_FORMATS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}
_READABLE = tuple(sorted(set(_FORMATS.values())))
_EXECUTABLE = ("pkl", "pickle", "pyd", "pth", "pt", "joblib", "dill")


def decode(extension: str, data: bytes) -> Any:
    """One member of a sample as an array, a number, a string or plain JSON.

    Args:
        extension: without the dot; of "seg.png" the last part decides.
        data: content.

    Raises:
        DecodeError: the extension is not on the whitelist, or the content is damaged, too large or something else.
    """
    return decoder(extension)(data)


def decoder(extension: str) -> Callable[[bytes], Any]:
    """What decodes an extension.

    Raises:
        DecodeError: nothing does.
    """
    last = extension.rpartition(".")[2].lower()
    if may_hold_code(extension):
        raise DecodeError(f".{extension} may hold code and is never loaded")
    if last not in _DECODERS:
        raise DecodeError(f".{extension} is not decoded; known: {', '.join(sorted(_DECODERS))}")
    return _DECODERS[last]


def may_hold_code(extension: str) -> bool:
    """Whether other loaders would execute what such a member says, also where it is compressed."""
    return any(part in _EXECUTABLE for part in extension.lower().split("."))


def is_decodable(extension: str) -> bool:
    """Whether an extension is on the whitelist."""
    return extension.rpartition(".")[2].lower() in _DECODERS


def image_extension(members: Mapping[str, bytes]) -> str:
    """The picture among the members of a sample.

    Raises:
        DecodeError: there is none.
    """
    return _member(members, "picture", tuple(_FORMATS))


def sound_extension(members: Mapping[str, bytes]) -> str:
    """The sound among the members of a sample.

    Raises:
        DecodeError: there is none.
    """
    return _member(members, "sound", SOUNDS)


def _member(members: Mapping[str, bytes], what: str, known: tuple[str, ...]) -> str:
    for extension in members:
        if extension.rpartition(".")[2] in known:
            return extension
    raise DecodeError(f"no {what} among {sorted(members) or 'no members'}; known: {', '.join(known)}")


def decode_image(data: bytes) -> np.ndarray:
    """A picture as uint8 (H, W, 3): upright, transparency on white, 16 bits scaled to 8.

    Raises:
        DecodeError: damaged, cut short, above MAX_PIXELS, or no JPEG, PNG or WebP.
    """
    picture = read_image(data)
    if isinstance(picture, np.ndarray):
        return picture
    with _told(data):
        return np.array(_to_rgb(picture))


def read_image(data: bytes) -> np.ndarray | Image.Image:
    """A picture as its file has it, decoded and upright: uint8 (H, W, 3) where that is all of it, else PIL's.

    Raises:
        DecodeError: as of `decode_image`.
    """
    if (fast := _plain_jpeg(data)) is not None:
        return fast
    with _told(data):
        picture = Image.open(io.BytesIO(data), formats=_READABLE)
        # Before any pixel is decoded.
        if picture.width * picture.height > MAX_PIXELS:
            raise DecodeError(f"{picture.width} x {picture.height} pixels, the limit is {MAX_PIXELS:,}")
        picture.load()
        return ImageOps.exif_transpose(picture)


@contextmanager
def _told(data: bytes) -> Iterator[None]:
    """What PIL raises for broken files, as an error that does not end a run."""
    try:
        yield
    except DecodeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(f"decompression bomb: {error}") from error
    except MemoryError as error:
        raise DecodeError("out of memory") from error
    except UnidentifiedImageError as error:
        raise DecodeError(f"{len(data):,} bytes that are no JPEG, PNG or WebP") from error
    except (OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, struct.error) as error:
        raise DecodeError(f"no readable picture ({type(error).__name__}: {str(error)[:120]})") from error


def _plain_jpeg(data: bytes) -> np.ndarray | None:
    """A small colour or grey JPEG without EXIF, decoded by torchvision: PIL's pixels in half its time.

    None for all other content, damaged one included: PIL decides about that.
    """
    if len(data) > SMALL_JPEG or data[:3] != b"\xff\xd8\xff":
        return None
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in (0xE1, 0xEE):  # EXIF may turn the picture, Adobe's note changes the meaning of its colours
            return None
        if marker in (0xC0, 0xC2):  # the frame: 8 bits, height, width, components
            height, width = struct.unpack_from(">HH", data, at + 5)
            if data[at + 4] != 8 or data[at + 9] not in (1, 3) or not 0 < height * width <= MAX_PIXELS:
                return None
            return _torchvision_jpeg(data)
        at += 2 + length
    return None


def _torchvision_jpeg(data: bytes) -> np.ndarray | None:
    operator = _jpeg_operator()
    if operator is None:
        return None
    try:
        pixels = operator(torch.frombuffer(bytearray(data), dtype=torch.uint8), 3, False)  # 3: as RGB
    except RuntimeError:
        return None
    return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())


@cache
def _jpeg_operator() -> Callable[..., torch.Tensor] | None:
    """torchvision's JPEG decoder without torchvision: importing that takes seconds, again in each spawned worker."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return None
    try:
        torch.ops.load_library(str(Path(spec.origin).with_name("image.so")))
        return torch.ops.image.decode_jpeg
    except (OSError, AttributeError):  # a build without it: PIL does
        return None


def _to_rgb(upright: Image.Image) -> Image.Image:
    if upright.mode.startswith("I"):
        # 16 bits: PIL's conversion clips them at 255 where they should be scaled.
        grey = np.asarray(upright).astype(np.float64) / 65535.0 * 255.0
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        colours = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return upright.convert("RGB")


def _number(data: bytes) -> int:
    try:
        if len(data) > 20:
            raise ValueError(f"{len(data)} bytes")
        return int(data.decode("ascii"))
    except ValueError as error:
        raise DecodeError(f"no class number: {data[:20]!r}") from error


def _text(data: bytes) -> str:
    if len(data) > MAX_TEXT:
        raise DecodeError(f"a text of {len(data):,} bytes is above the limit of {MAX_TEXT:,}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"no UTF-8 text: {error}") from error


def _json(data: bytes) -> Any:
    try:
        return json.loads(_text(data))
    except RecursionError as error:
        raise DecodeError("JSON is nested too deep") from error
    except json.JSONDecodeError as error:
        raise DecodeError(f"no JSON: {error}") from error


def _array(data: bytes) -> np.ndarray:
    """A .npy array; the header is checked against the content first, since it may promise any size."""
    try:
        file = io.BytesIO(data)
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        size = dtype.itemsize
        for length in shape:
            size *= length
        if dtype.hasobject or size > MAX_ARRAY or size > len(data) - file.tell():
            raise ValueError(f"{dtype} of shape {shape} does not fit {len(data)} bytes, or holds objects")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        # The header is a Python literal, and numpy parses it as one.
        raise DecodeError(f"no plain array ({error})") from error


def _sound(extension: str, data: bytes) -> Sound:
    return read_sound(data, extension)


_DECODERS: dict[str, Callable[[bytes], Any]] = {
    **dict.fromkeys(_FORMATS, decode_image),
    **{extension: partial(_sound, extension) for extension in SOUNDS},
    "cls": _number,
    "txt": _text,
    "json": _json,
    "npy": _array,
}
