"""What lookup-free quantizers share: latents projected to few channels, and where those begin.

Latents must meet a grid that is not learned. An encoder as it is built gives what it gives (a deviation of 0.15 around
a mean of -0.2, for a SEANet of speech): most signs and grid points are then those of the mean, a few codes in a hundred
are in use, and hundreds of updates pass until gradients through a rounding have spread them. One look at the latents
of the first update does it at once (data-dependent initialisation, Salimans & Kingma 2016, arXiv 1602.07868), as
k-means does for a codebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmtok.quantizers.base import Quantizer, QuantizerConfig

_LEAST = 1e-4
"""Standard deviation of a channel below which it is not made wider: a channel of silence stays one."""


@dataclass(frozen=True)
class LookupFreeConfig(QuantizerConfig):
    init: Literal["none", "spread"] = "none"
    """Where training begins. spread: each projected channel gets mean 0 and deviation 1 over the first update's
    latents, of all ranks."""


class LookupFree(Quantizer):
    """A quantizer of projected latents.

    Args:
        config: its settings.
        channels: that are quantized.
    """

    config: LookupFreeConfig
    spread: Tensor

    def __init__(self, config: LookupFreeConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.project_in = nn.Linear(config.dim, channels)
        self.project_out = nn.Linear(channels, config.dim)
        self._waits = config.init == "spread"
        if self._waits:
            self.register_buffer("spread", torch.zeros((), dtype=torch.int64))
            self.register_load_state_dict_post_hook(_read_spread)

    @property
    def learns(self) -> bool:
        return self._waits

    @torch.no_grad()
    def _moments(self, z: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Sums of the projected latents (B, T, D) and of their squares, until they have been used."""
        if not (self._waits and self.training):
            return {}
        weight = torch.ones_like(z[..., :1]) if mask is None else mask[..., None].to(z.dtype)
        x = self.project_in(z) * weight
        sums = torch.stack([x.sum((0, 1)), x.square().sum((0, 1)), weight.sum().expand(x.shape[-1])])
        return {"moments": sums}

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        if not self._waits:  # shared by several groups, or called by another part's need
            return
        total, squares, count = stats["moments"]
        mean = total / count.clamp(min=1)
        deviation = (squares / count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        scale = torch.where(deviation > _LEAST, 1 / deviation.clamp(min=_LEAST), 1.0)
        # New storage for the same parameters: graphs of forwards before this one keep what they were made of.
        weight, bias = self.project_in.weight, self.project_in.bias
        weight.data, bias.data = weight.data * scale[:, None], (bias.data - mean) * scale
        self.spread += 1
        self._waits = False


def _read_spread(module: nn.Module, _: Any) -> None:
    assert isinstance(module, LookupFree)
    module._waits = module.spread.is_meta or not bool(module.spread)
