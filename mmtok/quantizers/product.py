"""Product quantization: the channels in groups, each coded on its own. Any quantizer can be the group's.

Jegou et al. 2011, "Product Quantization for Nearest Neighbor Search"; in tokenizers as the multi-codebook quantization
of UniTok (arXiv 2502.20321). Bits add up as in a residual, but the groups know nothing of each other, and are equals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmtok.quantizers.base import Context, Quantized, QuantizerConfig, quantizers, register_quantizer
from mmtok.quantizers.nested import Nested, add_losses, prefixed
from mmtok.quantizers.vq import VQConfig


@dataclass(frozen=True)
class ProductConfig(QuantizerConfig):
    inner: Any = "vq"
    """The quantizer of a group: a name, a block with a name, or a config. Its `dim` is filled in: dim / groups."""
    groups: int = 2
    """Number of groups; they divide the channels."""
    shared: bool = False
    """One codebook for all groups."""

    def __post_init__(self) -> None:
        super().__post_init__()
        width = _width(self.dim, self.groups)
        object.__setattr__(self, "inner", quantizers.parse(self.inner, "inner", dim=width))
        if self.inner.dim != width:
            raise ValueError(f"inner.dim={self.inner.dim} is not dim / groups = {width}. Leave inner.dim out.")


def _width(dim: int, groups: int) -> int:
    if groups < 1 or dim % groups:
        fits = [n for n in range(1, dim + 1) if dim % n == 0]
        raise ValueError(f"groups={groups} does not divide dim={dim}. Use one of {fits}.")
    return dim // groups


@register_quantizer("product", ProductConfig)
class Product(Nested):
    """`groups` quantizers side by side; ids group by group, the levels of a nested inner one together."""

    def __init__(self, config: ProductConfig) -> None:
        super().__init__()
        self.config: QuantizerConfig = config
        self.settings = config
        built = self._build(config.inner, config.groups, config.shared)
        self.codebook_sizes = built[0].codebook_sizes * config.groups
        self.depth, self.drops = built[0].depth, built[0].drops  # dropped in every group alike
        self.straight_through = built[0].straight_through
        self.learns, self.noisy = built[0].learns, built[0].noisy

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        values, ids = [], []
        losses: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        hints = context._asdict()
        for group, z_group in enumerate(z.chunk(self.settings.groups, -1)):
            hints["seed"] = None if context.seed is None else context.seed + group
            out = self._part(group)(z_group, **hints)
            values.append(out.values)
            ids.append(out.ids)
            # The mean: each is a mean over its own channels, so this is what it would be over all of them.
            add_losses(losses, out.losses, 1 / self.settings.groups)
            stats |= prefixed(group, out.stats)
        return Quantized(torch.cat(values, -1), torch.cat(ids, 1), losses, stats)

    def relax(self, z: Tensor) -> Tensor:
        parts = z.chunk(self.settings.groups, -1)
        return torch.cat([self._part(group).relax(part) for group, part in enumerate(parts)], -1)

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        each = len(self._part(0).codebook_sizes)
        if each == 0 or ids.shape[1] != len(self.codebook_sizes):
            raise ValueError(
                f"ids have {ids.shape[1]} levels, but this quantizer takes {len(self.codebook_sizes)}: "
                f"{self.settings.groups} groups of {each}. Groups cannot be left out."
            )
        parts = [self._part(g).decode(own, grid=context.grid) for g, own in enumerate(ids.split(each, 1))]
        return torch.cat(parts, -1)

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0) -> None:
        parts = z.chunk(self.settings.groups, -1)
        if self.settings.shared:
            self._part(0).fit(torch.cat(parts), seed)
            return
        for group, part in enumerate(parts):
            self._part(group).fit(part, seed + group)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor | None:
        return self._part(0).draw_levels(count, generator)


@dataclass(frozen=True)
class PQConfig(VQConfig):
    """`product` over `vq`, with the fields of both side by side."""

    groups: int = 2
    """Number of groups; they divide the channels."""
    shared: bool = False
    """One codebook for all groups."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _width(self.dim, self.groups)


@register_quantizer("pq", PQConfig)
class PQ(Product):
    """Product vector quantization."""

    def __init__(self, config: PQConfig) -> None:
        inner = config.as_vq(_width(config.dim, config.groups))
        super().__init__(ProductConfig(config.dim, inner, config.groups, config.shared))
        self.config = config
