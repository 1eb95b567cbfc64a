"""Sounds to what the tokenizer of this bundle takes, for transformers' AutoFeatureExtractor and AutoProcessor.

Of use where sounds are prepared apart from the model, as in the workers of a loader; it needs no weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import BatchFeature, FeatureExtractionMixin

from mmtok.tokenizers.sounds import read_sound


class MmtokProcessor(FeatureExtractionMixin):
    """Sounds -> `x` (B, C, S) in [-1, 1] at `sampling_rate`, and the `lengths` (B,) of each in samples."""

    sampling_rate: int
    feature_size: int
    model_input_names = ["x", "lengths"]  # noqa: RUF012, as transformers has it

    def __call__(self, sound: Any, sampling_rate: int | None = None, **_: Any) -> BatchFeature:
        """One sound or a list of them: paths, bytes, or arrays of `sampling_rate` samples a second."""
        read = [
            read_sound(item, self.sampling_rate, self.feature_size, sampling_rate)[0].T
            for item in (sound if isinstance(sound, list | tuple) else [sound])
        ]
        lengths = torch.tensor([len(item) for item in read])
        return BatchFeature({"x": pad_sequence(read, batch_first=True).transpose(1, 2), "lengths": lengths})
