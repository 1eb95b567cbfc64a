"""Pictures in, x out, and back: files, bytes, PIL pictures and arrays to float32 in [-1, 1], in plain torch.

The geometry equals torchvision's functions on tensors, bit for bit, so that figures compare; Pillow is imported only
where a file or a PIL picture is at hand.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

Interpolation = Literal["bilinear", "bicubic"]
_TOLERANCE = 1e-3
_CHANNELS = (1, 2, 3, 4)


def read_pixels(source: Any, channels: int, value_range: tuple[float, float] = (-1.0, 1.0)) -> Tensor:
    """A picture in any usual form -> uint8 or float32 in [-1, 1], (1, C, H, W).

    Args:
        source: a path, the bytes of a file, a PIL picture, or an array or tensor (H, W), (H, W, C), (C, H, W) or
            (1, C, H, W). Where an array could be read both ways, numpy's is (H, W, C) and torch's (C, H, W).
        channels: 3 for colour, 1 for grey. Grey becomes colour by repetition, colour grey by ITU-R 601 luma, and
            transparent pictures are laid over white.
        value_range: what the ends of a float array mean. Integers have their own: 0 .. 255, or 0 .. 65535.

    Raises:
        ValueError: not a picture, or values outside the range.
    """
    if isinstance(source, str | Path):
        if not Path(source).is_file():
            raise ValueError(f"There is no picture at {source}.")
        source = _open(Path(source).read_bytes(), str(source))
    elif isinstance(source, bytes | bytearray | memoryview):
        source = _open(bytes(source), "these bytes")
    if isinstance(source, np.ndarray):
        return _channels(_from_array(source, value_range), channels)
    if isinstance(source, Tensor):
        return _channels(_from_tensor(source, value_range), channels)
    if hasattr(source, "convert"):
        return _from_pil(source, channels)
    raise ValueError(f"A picture is a path, bytes, a PIL picture or an array, got {type(source).__name__}.")


def prepare(
    source: Any,
    channels: int,
    size: int | tuple[int, int] | None = None,
    crop: int | tuple[int, int] | None = None,
    interpolation: Interpolation = "bicubic",
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Tensor:
    """As `read_pixels`, scaled by `resize` and cut by `center_crop` where a `size` and a `crop` are given."""
    picture = read_pixels(source, channels, value_range)
    if size is not None:
        picture = resize(picture, size, interpolation)
    return picture if crop is None else center_crop(picture, crop)


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 0 .. 255 -> float32 -1 .. 1; floats pass."""
    return pixels.float() / 127.5 - 1 if pixels.dtype == torch.uint8 else pixels.float()


def to_uint8(x: Tensor) -> Tensor:
    """x in [-1, 1] -> uint8, clamped and rounded to the nearest: truncation would darken by half a step."""
    return ((x.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_pil(x: Tensor) -> list[Image]:
    """x (B, C, H, W) in [-1, 1] -> PIL pictures."""
    from PIL import Image

    arrays = to_uint8(x).movedim(1, -1).cpu().numpy()
    return [Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array) for array in arrays]


def resize(pixels: Tensor, size: int | tuple[int, int], interpolation: Interpolation = "bicubic") -> Tensor:
    """(B, C, H, W) -> the shorter side `size`, or (height, width), antialiased; uint8 is rounded, [-1, 1] clamped."""
    height, width = pixels.shape[-2:]
    if isinstance(size, int):
        short, long = min(height, width), max(height, width)
        other = int(size * long / short)
        size = (size, other) if height <= width else (other, size)
    if size == (height, width):
        return pixels
    resized = F.interpolate(pixels.float(), size=size, mode=interpolation, align_corners=False, antialias=True)
    if pixels.dtype == torch.uint8:
        return resized.clamp(0, 255).round().to(torch.uint8)
    return resized.clamp(-1, 1)  # bicubic overshoots at edges


def center_crop(pixels: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The middle `size` of (B, C, H, W).

    Raises:
        ValueError: the picture is smaller.
    """
    rows, columns = (size, size) if isinstance(size, int) else size
    height, width = pixels.shape[-2:]
    if height < rows or width < columns:
        raise ValueError(f"A picture of {height}x{width} has no middle of {rows}x{columns}. Give resize={rows} too.")
    top, left = round((height - rows) / 2), round((width - columns) / 2)
    return pixels[..., top : top + rows, left : left + columns]


def check_pixels(x: Tensor, channels: int) -> None:
    """Refuse what is no x. Reads two numbers from the device.

    Raises:
        ValueError: wrong shape, type, channels or range, or values that are not finite.
    """
    check_layout(x, channels)
    if not x.numel():
        return
    low, high = torch.stack(x.float().aminmax()).tolist()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("The picture has values that are not finite (NaN or infinite).")
    if low < -1 - _TOLERANCE or high > 1 + _TOLERANCE:
        remedy = " It looks like 0 .. 255: divide by 127.5 and subtract 1." if high > 2 and low >= 0 else ""
        raise ValueError(f"Pictures have values in [-1, 1], got [{low:.4g}, {high:.4g}].{remedy}")


def check_layout(x: Tensor, channels: int) -> None:
    """Refuse a wrong shape or type; reads nothing from the device.

    Raises:
        ValueError: not (B, C, H, W) of floats with the right channels.
    """
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        remedy = ""
        if x.ndim == 4 and x.shape[-1] == channels:
            remedy = " It looks like (B, H, W, C): use x.movedim(-1, 1)."
        raise ValueError(f"Pictures are (B, {channels}, H, W), got {tuple(x.shape)}.{remedy}")
    if not x.is_floating_point():
        raise ValueError(f"Pictures are floats in [-1, 1], got {x.dtype}. Use preprocess, or x / 127.5 - 1 for uint8.")


def _open(data: bytes, name: str) -> Image:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        raise ValueError("Reading pictures needs Pillow: pip install pillow.") from error
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except UnidentifiedImageError as error:  # its text is an address in memory
        raise ValueError(f"{name} cannot be read as a picture: Pillow knows no such format.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as a picture: {error}.") from error
    return picture


def _from_pil(picture: Image, channels: int) -> Tensor:
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)  # cameras store how the picture is turned
    if picture.mode.startswith("I") or picture.mode == "F":
        # Pillow's own conversion of 16 bits clips at 255 and gives a white picture.
        array = np.asarray(picture)
        if array.dtype.kind == "f" or array.max(initial=0) > 65535 or array.min(initial=0) < 0:
            raise ValueError(f"A picture of mode {picture.mode} has no known range. Convert it to 8 or 16 bits.")
        return _channels(_from_array(array.astype(np.uint16), (-1, 1)), channels)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    array = np.array(picture.convert("RGB" if channels == 3 else "L"))
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).movedim(-1, 0)[None].contiguous()


def _from_array(array: np.ndarray, value_range: tuple[float, float]) -> Tensor:
    if array.dtype == np.uint16:
        array = array.astype(np.float32) * (2 / 65535) - 1
        value_range = (-1.0, 1.0)
    if array.ndim == 3 and (array.shape[-1] in _CHANNELS or array.shape[0] not in _CHANNELS):
        array = np.moveaxis(array, -1, 0)
    return _from_tensor(torch.from_numpy(np.array(array, order="C")), value_range)


def _from_tensor(pixels: Tensor, value_range: tuple[float, float]) -> Tensor:
    """Any layout with a channel axis in _CHANNELS -> (1, C, H, W), uint8 or float32 in [-1, 1]."""
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim == 3:
        if pixels.shape[0] not in _CHANNELS and pixels.shape[-1] in _CHANNELS:
            pixels = pixels.movedim(-1, 0)
        pixels = pixels[None]
    if pixels.ndim != 4 or pixels.shape[1] not in _CHANNELS:
        raise ValueError(
            f"A picture is (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels, got {tuple(pixels.shape)}."
        )
    if pixels.dtype == torch.uint8:
        return pixels
    if not pixels.is_floating_point():
        raise ValueError(f"Pictures are uint8, uint16 or floats, got {pixels.dtype}. Use pixels.to(torch.uint8).")
    low, high = value_range
    x = (pixels.float() - low) * (2 / (high - low)) - 1 if value_range != (-1.0, 1.0) else pixels.float()
    check_pixels(x, x.shape[1])
    if value_range == (-1.0, 1.0) and x.numel() and x.min() >= 0 and x.max() > 0.5:
        warnings.warn(
            "This float picture has no value below 0: it is taken as [-1, 1]. Give value_range=(0, 1) if it is not.",
            stacklevel=5,
        )
    return x


def _channels(pixels: Tensor, channels: int) -> Tensor:
    """Alpha over white, then grey to colour or colour to grey."""
    count = pixels.shape[1]
    if count == channels:
        return pixels
    x = to_unit(pixels)
    if count in (2, 4):
        alpha = (x[:, -1:] + 1) / 2
        x = x[:, :-1] * alpha + (1 - alpha)
    if channels == 3 and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    elif channels == 1 and x.shape[1] == 3:
        x = (x * x.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    elif x.shape[1] != channels:
        raise ValueError(f"A picture of {count} channels cannot become one of {channels}.")
    return to_uint8(x) if pixels.dtype == torch.uint8 else x.contiguous()
