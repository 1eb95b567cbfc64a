"""Vectors to what the tokenizer of this bundle takes, for transformers' AutoFeatureExtractor and AutoProcessor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, FeatureExtractionMixin

from mmtok.tokenizers.arrays import read_array


class MmtokProcessor(FeatureExtractionMixin):
    """Vectors -> `x` (B, F) float32 of `width` numbers each; the tokenizer standardises them itself."""

    width: int
    model_input_names = ["x"]  # noqa: RUF012, as transformers has it

    def __call__(self, vectors: Any, **_: Any) -> BatchFeature:
        """A .npy file, its bytes or an array (F,) or (B, F), or a list of them."""
        each = vectors if isinstance(vectors, list | tuple) else [vectors]
        rows = [np.atleast_2d(read_array(one)) for one in each]
        if wrong := next((row.shape[1] for row in rows if row.shape[1] != self.width), None):
            raise ValueError(f"a vector of {wrong} numbers, and this tokenizer takes {self.width}.")
        return BatchFeature({"x": torch.from_numpy(np.concatenate(rows).astype(np.float32))})
