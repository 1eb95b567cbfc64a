"""What stands between encoder and quantizer, and what a pass gives back."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.quantizers.base import Quantized


class Latents(NamedTuple):
    """What the encoder gives and the quantizer takes."""

    z: Tensor
    """(B, T, D) channels-last."""
    mask: Tensor | None
    """(B, T) bool, True where there is a latent; None where all are."""
    grid: tuple[int, int] | None
    """(H, W) with H * W = T, for images."""
    source_size: Tensor
    """(B, n) int64, pixels (height, width) or samples of each source, before padding."""
    gain: Tensor | None = None
    """(B,) what each item was divided by before the encoder, and what comes back is multiplied by; None for nothing."""

    def first(self, positions: Tensor | None) -> Latents:
        """These latents with only the first `positions` (B,) of each item; None keeps all."""
        if positions is None:
            return self
        kept = torch.arange(self.z.shape[1], device=self.z.device) < positions[:, None]
        return self._replace(mask=kept if self.mask is None else kept & self.mask)


class Reconstruction(NamedTuple):
    """What a training step needs of one pass."""

    x: Tensor
    """The reconstruction, shaped as the input; of tokenizers that give logits (B, values, ...), those of each value."""
    quantized: Quantized
    latents: Latents
