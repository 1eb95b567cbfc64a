"""Vector quantization: each latent becomes the nearest code of a learned codebook.

van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937), with codes by moving average as
in its appendix; low-dimensional codes compared by direction as in ViT-VQGAN (arXiv 2110.04627) and DAC (arXiv
2306.06546). The freest codebook for its size, and the one that can collapse: `init: kmeans` and `restart` keep all of
it in use.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch.nn.functional as F
from torch import Tensor

from mmtok.quantizers.base import register_quantizer
from mmtok.quantizers.codebook import Codebook, CodebookConfig


@dataclass(frozen=True)
class VQConfig(CodebookConfig):
    cosine: bool = False
    """Choose codes by direction alone, as `l2` does, but give them with their lengths, which are learned (DAC)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cosine and self.l2:
            raise ValueError("l2 compares directions already, of codes without lengths. Leave out l2 or cosine.")

    def as_vq(self, dim: int) -> VQConfig:
        """The fields of a plain `vq` out of a preset's, for latents of `dim` channels."""
        return VQConfig(**{field.name: getattr(self, field.name) for field in fields(VQConfig)} | {"dim": dim})


@register_quantizer("vq", VQConfig)
class VQ(Codebook):
    """One codebook; one level of ids."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__(config)
        self.config: VQConfig = config

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, codes, bias = super()._compared(x)
        return (F.normalize(x, dim=-1), F.normalize(codes, dim=-1), bias) if self.config.cosine else (x, codes, bias)
