"""Picture codecs that a tokenizer is measured against, through Pillow: a picture to the bytes of a file and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Codec:
    """One lossy codec with one number to turn."""

    name: str
    """As reports carry it."""
    extension: str
    """Pillow has the codec where it has registered this."""
    qualities: range
    """Integers from the fewest bits to the most."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the encoder, besides `quality`."""

    def encode(self, picture: Tensor, quality: int) -> bytes:
        """uint8 (1 or 3, H, W) -> a whole file, header included, without metadata."""
        return self._save(_image(picture), quality)

    def decode(self, data: bytes, channels: int) -> Tensor:
        """A file -> uint8 (channels, H, W)."""
        import numpy as np
        from PIL import Image

        with Image.open(io.BytesIO(data)) as image:
            array = np.array(image.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(array).view(*array.shape[:2], channels).movedim(-1, 0)

    def flat_bytes(self, picture: Tensor) -> int:
        """Size of the file of a flat grey picture of the same size: what its headers cost."""
        return len(self.encode(torch.full_like(picture, 128), self.qualities[0]))

    def _save(self, image: Image, quality: int) -> bytes:
        file = io.BytesIO()
        image.save(file, format=_registered()[self.extension], quality=quality, **self.options)
        return file.getvalue()


CODECS = (
    Codec("JPEG", ".jpg", range(1, 101), {"optimize": True}),
    Codec("WebP", ".webp", range(101), {"method": 6}),
    Codec("AVIF", ".avif", range(101), {"speed": 6}),
    Codec("JPEG XL", ".jxl", range(100), {"effort": 7}),  # 100 is another, lossless coding
)
"""Chroma is what Pillow takes by default: halved in both directions by all but JPEG XL."""


def available_codecs() -> tuple[Codec, ...]:
    """Those that this machine's Pillow can write; `pip install pillow-jxl-plugin` adds JPEG XL."""
    from PIL import Image

    known = _registered()
    return tuple(codec for codec in CODECS if known.get(codec.extension) in Image.SAVE)


def library_versions() -> dict[str, str]:
    """What the encoders are."""
    import PIL
    from PIL import features

    names = ("libjpeg_turbo", "webp", "avif")
    found = {name: version for name in names if (version := features.version(name))}
    return {"pillow": PIL.__version__, **found}


def _registered() -> dict[str, str]:
    """Extension -> Pillow's name of the format."""
    from PIL import Image

    if find_spec("pillow_jxl") is not None:
        import pillow_jxl  # noqa: F401, registers
    return Image.registered_extensions()


def _image(picture: Tensor) -> Image:
    from PIL import Image

    array = picture.movedim(0, -1).contiguous().cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
