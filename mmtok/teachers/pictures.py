"""Teachers of pictures: a classifier whose weights install from a package, and encoders of transformers by folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from datamodules.decode import decode_image
from mmtok.teachers.base import Teacher, from_transformers, register_teacher

PICTURES = ("jpg", "jpeg", "png", "webp")


def square(data: bytes, side: int) -> Tensor:
    """The middle square of a picture, (3, side, side) uint8."""
    pixels = torch.from_numpy(decode_image(data)).permute(2, 0, 1)
    shorter = min(pixels.shape[1:])
    top, left = ((length - shorter) // 2 for length in pixels.shape[1:])
    middle = pixels[None, :, top : top + shorter, left : left + shorter].float()
    resized = F.interpolate(middle, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].clamp(0, 255).round().byte()


@register_teacher
class EffLite0(Teacher):
    """EfficientNet-Lite0 before its classifier, 1,280 features averaged over the picture: what ImageNet taught it."""

    name = "efflite0"
    content = PICTURES

    def __init__(self) -> None:
        from mmtok.evaluation.features import build_features

        self.network = build_features("efflite0")

    @torch.inference_mode()
    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        x = torch.stack([square(data, 224) for _, data in signals])
        return list(self.network(x).numpy())

    def about(self) -> dict[str, Any]:
        return {"about": f"middle square; {self.network.description}"}


class Encoder(Teacher):
    """An encoder of transformers, on what its own processor makes of a picture; one vector each."""

    content = PICTURES
    folder = True
    what: ClassVar[str]
    """Of the vector, in words."""
    kinds: ClassVar[tuple[str, ...]]
    """Models of transformers that it understands."""

    def __init__(self, folder: Path) -> None:
        self.processor, model = from_transformers(self.name, folder, self.kinds, "AutoImageProcessor", "AutoModel")
        self.model = model.eval()

    @torch.inference_mode()
    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        pictures = [decode_image(data) for _, data in signals]
        inputs = self.processor(images=pictures, return_tensors="pt")
        return list(self.vectors(inputs["pixel_values"]).float().numpy())

    def vectors(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) as the processor gives them -> (B, F)."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        return {"about": f"{self.what} of {type(self.model).__name__} ({self.model.config.model_type})"}


@register_teacher
class DINOv2(Encoder):
    """Oquab et al. 2023 (arXiv 2304.07193): the class token, learned without labels."""

    name = "dinov2"
    what = "class token after the last norm"
    kinds = ("dinov2", "dinov2_with_registers")

    def vectors(self, pixels: Tensor) -> Tensor:
        vectors: Tensor = self.model(pixel_values=pixels).pooler_output
        return vectors


@register_teacher
class SigLIP(Encoder):
    """Zhai et al. 2023 (arXiv 2303.15343): what was made to match captions."""

    name = "siglip"
    what = "pooled picture, as it is compared with texts"
    kinds = ("siglip", "siglip2")

    def vectors(self, pixels: Tensor) -> Tensor:
        found = self.model.get_image_features(pixel_values=pixels)
        vectors: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return vectors
