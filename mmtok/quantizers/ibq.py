"""Index backpropagation: the gradient goes through the softmax over all codes, and so to every code at each step.

Shi et al. 2024, "Scalable Image Tokenization with Index Backpropagation Quantization" (arXiv 2412.02692). Codes are
compared by their product with the latent, and stay near the latents because all of them move. The authors hold that
softmax, N x K, several times over (image.md trap 13); here it is made a chunk at a time, and again in backward.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtok.quantizers.base import Context, register_quantizer
from mmtok.quantizers.lookup import Lookup, LookupConfig
from mmtok.quantizers.soft import hard_values


@dataclass(frozen=True)
class IBQConfig(LookupConfig):
    commitment_weight: float = 1.0
    """Weight of the squared distance that pulls latents to codes."""
    codebook_weight: float = 0.25
    """Weight of the squared distance that pulls chosen codes to latents."""
    index_weight: float = 1.0
    """Weight of the squared distance whose gradient goes through the index too, and so to all codes."""
    temperature: float = 1.0
    """Softness of the index: products of latents and codes over it are the logits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


@register_quantizer("ibq", IBQConfig)
class IBQ(Lookup):
    """One codebook; one level of ids."""

    pulled = True
    scale: Tensor

    def __init__(self, config: IBQConfig) -> None:
        super().__init__(config)
        self.config: IBQConfig = config
        self.straight_through = False
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, self.code_dim) / self.code_dim**0.5)
        # Persistent, though derivable: loaders that build on the meta device restore only what is saved.
        self.register_buffer("scale", torch.tensor(1 / config.temperature))

    def _codes(self) -> Tensor:
        return self._normalise(self.codebook)

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, codes, _ = super()._compared(x)
        return x, codes, codes.new_zeros(len(codes))  # by products alone

    def _two_best(self, x: Tensor, codes: Tensor) -> Tensor:
        if len(codes) == 1:
            return x.new_full(x.shape[:1], torch.inf)
        first, second = (x.double() @ codes.double().t()).topk(2).values.unbind(1)
        return 2 * (first - second).float()  # of codes of one length: the difference of squared distances

    def _carry(self, x: Tensor, codes: Tensor, ids: Tensor) -> Tensor:
        table = self._codes()
        return hard_values(x.flatten(0, 1), table, None, table, ids, self.scale).view_as(x)

    def _losses(self, x: Tensor, carried: Tensor, context: Context) -> dict[str, Tensor]:
        index = self.config.index_weight * context.mean((carried - x).square().mean(-1))
        return {"index": index} | super()._losses(x, carried, context)

    def _scored(self) -> tuple[Tensor, Tensor | None]:
        return self._codes(), None
