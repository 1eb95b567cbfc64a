"""Pictures to what the tokenizer of this bundle takes, for transformers' AutoImageProcessor and AutoProcessor.

Of use where pictures are prepared apart from the model, as in the workers of a loader; it needs no weights.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import BatchFeature, FeatureExtractionMixin

from mmtok.tokenizers.pixels import Interpolation, prepare, to_unit


class MmtokProcessor(FeatureExtractionMixin):
    """Pictures -> `x` (B, C, H, W) in [-1, 1], each resized and cropped to `size` unless that is None."""

    channels: int
    size: int | None
    interpolation: Interpolation
    model_input_names = ["x"]  # noqa: RUF012, as transformers has it

    def __call__(self, images: Any, size: int | None = None, **_: Any) -> BatchFeature:
        """One picture or a list of them: paths, bytes, PIL pictures or arrays."""
        size = size or self.size
        each = images if isinstance(images, list | tuple) else [images]
        x = [to_unit(prepare(image, self.channels, size, size, self.interpolation)) for image in each]
        return BatchFeature({"x": torch.cat(x)})
