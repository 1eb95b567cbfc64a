"""SimVQ: the codebook is a fixed random table seen through one learned linear map.

Zhu et al. 2024, "Addressing Representation Collapse in Vector Quantized Models with One Linear Layer" (arXiv
2411.02038). Every gradient moves the map, and so all codes at once: there is no code that is left behind, at 65,536 and
more. The price is a codebook that is as free as the map alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers.base import register_quantizer
from mmtok.quantizers.estimators import Gradient
from mmtok.quantizers.lookup import Lookup, LookupConfig


@dataclass(frozen=True)
class SimVQConfig(LookupConfig):
    gradient: Gradient = "straight"
    """What gradient latents get, as in `vq`."""


@register_quantizer("simvq", SimVQConfig)
class SimVQ(Lookup):
    """One level of ids; the codes are `project_codes(frozen)`, in `decode` too (image.md trap 16)."""

    pulled = True
    frozen: Tensor

    def __init__(self, config: SimVQConfig) -> None:
        super().__init__(config, config.gradient)
        self.config: SimVQConfig = config
        self.register_buffer("frozen", torch.randn(config.codebook_size, self.code_dim) / self.code_dim**0.5)
        self.project_codes = nn.Linear(self.code_dim, self.code_dim)

    def _codes(self) -> Tensor:
        return self._normalise(self.project_codes(self.frozen))

    def _embed(self, ids: Tensor) -> Tensor:
        if ids.numel() >= len(self.frozen):
            return super()._embed(ids)
        # Of a large table the map of the codes in use, not the codes in use of the map: no gradient of its size.
        return self._normalise(self.project_codes(F.embedding(ids, self.frozen)))
