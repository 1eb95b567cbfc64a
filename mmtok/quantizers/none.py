"""No quantization: latents pass through. The ceiling in every table, and how a network alone would do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer


@dataclass(frozen=True)
class NoneConfig(QuantizerConfig):
    """Nothing to choose."""


@register_quantizer("none", NoneConfig)
class NoQuantizer(Quantizer):
    """Values are the latents; ids (B, 0, T) have no level, so that there is nothing to decode."""

    straight_through = True

    def __init__(self, config: NoneConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_sizes = ()

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        ids = z.new_empty((z.shape[0], 0, z.shape[1]), dtype=torch.int64)
        return Quantized(z, ids, losses={}, stats={})

    def decode(self, ids: Tensor, **hints: object) -> Tensor:
        raise ValueError("quantizer 'none' has no codes, so there is nothing to decode. Train with another quantizer.")
