"""Gumbel-softmax: codes are drawn, in proportion to learned scores, and the gradient goes through a relaxed draw.

Jang et al. 2016, "Categorical Reparameterization with Gumbel-Softmax" (arXiv 1611.01144); as the tokenizer of DALL-E
(Ramesh et al. 2021, arXiv 2102.12092), whose temperature and weight of the divergence follow the updates. Nothing is
compared by distance, and a divergence from even use stands in place of the commitment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer
from mmtok.quantizers.entropy import weights
from mmtok.quantizers.noise import row_keys
from mmtok.quantizers.search import chunk_rows, nearest
from mmtok.quantizers.soft import entropies, hard_values, soft_values


@dataclass(frozen=True)
class GumbelConfig(QuantizerConfig):
    codebook_size: int = 1024
    """Number of codes."""
    straight: bool = True
    """Give the values of the drawn code, with the relaxed draw's gradient. False gives the relaxed draw's values in
    training, which are those of no code; its ids and what it decodes to are the same."""
    temperature: float = 1.0
    """Of the relaxed draw, at the first update."""
    temperature_end: float = 0.0625
    """From update `anneal_updates` on; half a cosine leads there. DALL-E: 1/16."""
    anneal_updates: int = 150_000
    """Updates until then; 0 starts at the end."""
    kl_weight: float = 5e-4
    """Weight of the divergence of the scores from even use, in nats a position."""
    kl_updates: int = 0
    """Updates over which that weight rises from 0. DALL-E: 5,000."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size < 1:
            raise ValueError(f"codebook_size must be at least 1, got {self.codebook_size}")
        for name in ("temperature", "temperature_end"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("anneal_updates", "kl_updates"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")


@register_quantizer("gumbel", GumbelConfig)
class Gumbel(Quantizer):
    """One level of ids. The hint `seed` draws; without it the code of the best score is taken.

    The draw of a position follows from its item's seed, so it is the same on any number of ranks (image.md trap 6).
    """

    learns = True
    noisy = True
    updates: Tensor

    def __init__(self, config: GumbelConfig) -> None:
        super().__init__()
        self.config: GumbelConfig = config
        self.codebook_sizes = (config.codebook_size,)
        self.scores = nn.Linear(config.dim, config.codebook_size)
        self.codebook = nn.Parameter(torch.randn(config.codebook_size, config.dim) / config.dim**0.5)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        x, keys, bias = z.flatten(0, 1), self.scores.weight, self.scores.bias
        noise = None if context.seed is None else row_keys(context.seed, z.shape[1])
        ids = nearest(x, keys, bias, noise)
        scale = 1 / self.current_temperature()
        if self.config.straight or not self.training:
            values = hard_values(x, keys, bias, self.codebook, ids, scale, noise)
        else:
            values = soft_values(x, keys, bias, self.codebook, scale, noise)
        weight = weights(x, context)
        losses = self._divergence(x, weight, context, z.shape)
        stats = {"counts": weight.new_zeros(self.codebook_sizes[0]).index_add_(0, ids, weight)}
        return Quantized(values.view_as(z), ids.view(z.shape[0], 1, z.shape[1]), losses, stats)

    def relax(self, z: Tensor) -> Tensor:
        x, scale = z.float().flatten(0, 1), 1 / self.current_temperature()
        return soft_values(x, self.scores.weight, self.scores.bias, self.codebook, scale).view(z.shape)

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return F.embedding(ids[:, 0].clamp(min=0), self.codebook)

    def code_table(self) -> Tensor:
        return self.codebook.detach().float()

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        if self.config.codebook_size == 1:
            return super().margins(z)
        keys, bias = self.scores.weight.double(), self.scores.bias.double()
        rows = z.flatten(0, 1).double().split(chunk_rows(self.codebook))
        best = [torch.addmm(bias, part, keys.t()).topk(2).values for part in rows]
        return (
            torch.cat([first - second for first, second in (pair.unbind(1) for pair in best)]).view(z.shape[:2]).float()
        )

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        self.updates += 1

    def current_temperature(self) -> Tensor:
        """() the temperature at this update."""
        first, last = self.config.temperature, self.config.temperature_end
        return last + (first - last) * (1 + torch.cos(torch.pi * self._passed(self.config.anneal_updates))) / 2

    def _passed(self, updates: int) -> Tensor:
        """() the share of so many updates that is over."""
        return (
            (self.updates.float() / max(updates, 1)).clamp(max=1) if updates else torch.ones_like(self.updates.float())
        )

    def _divergence(self, x: Tensor, weight: Tensor, context: Context, shape: torch.Size) -> dict[str, Tensor]:
        """log K minus the entropy of the scores without noise. In training alone: it costs a softmax over all codes."""
        if not (self.config.kl_weight and self.training):
            return {}
        entropy, _ = entropies(x, self.scores.weight, self.scores.bias, weight, x.new_ones(()))
        divergence = context.mean(log(self.config.codebook_size) - entropy.view(shape[:2]))
        return {"kl": self.config.kl_weight * self._passed(self.config.kl_updates) * divergence}
