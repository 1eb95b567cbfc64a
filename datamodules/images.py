"""Pictures: bytes to a square of pixels, cut and turned by draws that belong to the sample's slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.base import DataConfig, register_data
from datamodules.decode import DecodeError, decode, decode_image, image_extension
from datamodules.module import ShardDataModule
from datamodules.reader import SlotSample
from datamodules.teacher import check_alike, member_of, read_features, require_teachers
from mmtok.schema import ConfigError

_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class ImagesConfig(DataConfig):
    gives = "image"
    image_size: int = 256
    """Side of the squares that are trained on."""
    crop: Literal["random", "center"] = "random"
    """Where the square is cut from in training; validation always takes the middle."""
    min_scale: float = 1.0
    """Least share of the shorter side a random square covers before it is scaled to `image_size`; 1 takes all of it.
    Ignored where the picture would have to be enlarged: then the square has `image_size` pixels."""
    resize: bool = True
    """Scale to `image_size`. False cuts `image_size` pixels out of the picture as it is; smaller pictures are still
    enlarged."""
    flip: bool = True
    """Mirror half of the training samples left to right."""
    interpolation: Literal["bilinear", "bicubic", "lanczos"] = "bicubic"
    """Of every resizing; Pillow's, antialiased."""
    grey: bool = False
    """One channel in place of three."""
    teacher: str = ""
    """Features beside each picture to give along, by the name of their member: efflite0 for `efflite0.npy`. One vector
    (F,) of the whole, whatever is cut out of it; or (F, rows, columns) of its places, which takes `crop: center` and
    `flip: false`, so that places stay where they are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size} must be at least 1.")
        if not 0 < self.min_scale <= 1:
            raise ValueError(f"min_scale={self.min_scale} must be in (0, 1].")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.image_size, self.image_size)


class Picture(NamedTuple):
    """One item."""

    pixels: np.ndarray
    """(C, H, W) uint8."""
    label: int
    key: str
    features: np.ndarray | None = None
    """(F,) or (F, rows, columns) float32; None where no teacher is asked for."""


@register_data("images", ImagesConfig)
class Images(ShardDataModule):
    """Batches of "x" (B, C, H, W), "label" (B,) with -1 where there is none, and "key"; "teacher" (B, F, ...)."""

    config: ImagesConfig
    content = ("jpg", "jpeg", "png", "webp")

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self.extensions = (*self.content, "cls", "npy") if self.config.teacher else (*self.content, "cls")

    def plan(self, *, seed: int, accumulate: int) -> None:
        """As of the base; also finds features that are missing."""
        super().plan(seed=seed, accumulate=accumulate)
        require_teachers(self, self.config.teacher)

    def item(self, sample: SlotSample, training: bool) -> Picture:
        """One sample -> pixels (C, H, W) uint8, class, key, and what a teacher said of it."""
        extension = image_extension(sample.members)
        pixels = decode_image(sample.members[extension])
        draw = np.random.Generator(np.random.Philox(sample.seed)) if training else None
        square = cut_square(pixels, self.config, draw)
        if self.config.grey:
            square = np.asarray(Image.fromarray(square).convert("L"))[..., None]
        label = decode("cls", sample.members["cls"]) if "cls" in sample.members else -1
        features = self._features(sample)
        return Picture(np.ascontiguousarray(square.transpose(2, 0, 1)), label, sample.key, features)

    def _features(self, sample: SlotSample) -> np.ndarray | None:
        config = self.config
        if not config.teacher:
            return None
        features = read_features(sample.members, config.teacher, (1, 3))
        if features.ndim == 3 and (config.flip or config.crop != "center"):
            raise ConfigError(
                f"{member_of(config.teacher)} tells of places in the picture, which data.flip and data.crop=random "
                "move. Set data.flip=false data.crop=center, or give one vector a picture."
            )
        return features

    def batch(self, items: list[Any]) -> dict[str, Any]:
        """Items -> one tensor of bytes; the device makes numbers of them."""
        pixels, labels, keys, features = zip(*items, strict=True)
        batch = {"x": torch.from_numpy(np.stack(pixels)), "label": torch.tensor(labels), "key": list(keys)}
        if self.config.teacher:
            check_alike(features, keys, self.config.teacher, 3)
            batch["teacher"] = torch.from_numpy(np.stack(features))
        return batch

    def to_signal(self, x: Tensor) -> Tensor:
        return x.float().div_(127.5).sub_(1)


def cut_square(pixels: np.ndarray, config: ImagesConfig, draw: np.random.Generator | None) -> np.ndarray:
    """A square of `image_size` from a picture (H, W, 3) uint8; by the draws in training, the middle without them.

    The draws are always four, so that an option does not change what another one sees.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < 1:
        raise DecodeError("the picture has no pixels")
    scale, down, right, mirror = draw.random(4) if draw is not None else (1.0, 0.5, 0.5, 1.0)
    if draw is not None and config.crop == "center":
        down = right = 0.5
    shorter = min(height, width)
    side = shorter
    if not config.resize:
        side = min(shorter, config.image_size)
    elif draw is not None and shorter > config.image_size:
        least = max(config.image_size, round(config.min_scale * shorter))
        side = least + int(scale * (shorter - least + 1))
    top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
    square = pixels[top : top + side, left : left + side]
    if side != config.image_size:
        picture = Image.fromarray(square)
        square = np.asarray(picture.resize((config.image_size,) * 2, _FILTERS[config.interpolation]))
    return square[:, ::-1] if draw is not None and config.flip and mirror < 0.5 else square
