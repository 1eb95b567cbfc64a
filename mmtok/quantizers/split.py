"""A semantic quantizer beside residual levels: both code the same latents, and their values add up.

Mimi (Defossez et al. 2024, Moshi, arXiv 2410.00037, 3.3.3). A level that is distilled from a teacher of meaning codes a
signal badly; beside it, unlike before it, the residual levels need not mend what it left, and meaning stays in level 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, QuantizerConfig, quantizers, register_quantizer
from mmtok.quantizers.digits import refuse_inner
from mmtok.quantizers.nested import Nested, add_losses, prefixed


@dataclass(frozen=True)
class SplitConfig(QuantizerConfig):
    semantic: Any = "vq"
    """The quantizer of meaning: a name, a block with a name, or a config. Its `dim` is filled in. It is always kept."""
    acoustic: Any = "rq"
    """The quantizer of the rest, whose levels can be dropped."""
    inner_dim: int = 0
    """Channels both work in, between linear layers of their own; 0 means `dim`. Mimi: 256 of 512."""
    bypass: float = 0.0
    """Share of training items whose values are not rounded, drawn with their levels: the decoder sees what could be
    coded, codes learn from all. Mimi: 0.5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner_dim < 0:
            raise ValueError(f"inner_dim must be 0 (as dim) or more, got {self.inner_dim}.")
        if not 0 <= self.bypass < 1:
            raise ValueError(f"bypass is a share of the items, in [0, 1), got {self.bypass}.")
        dim = self.inner_dim or self.dim
        for name in ("semantic", "acoustic"):
            inner = quantizers.parse(getattr(self, name), name, dim=dim)
            if inner.dim != dim:
                raise ValueError(f"{name}.dim={inner.dim} is not inner_dim={dim}. Leave {name}.dim out.")
            object.__setattr__(self, name, inner)


@register_quantizer("split", SplitConfig)
class Split(Nested):
    """Ids: the semantic ones, then the acoustic levels. `first` is what the semantic ones decode to.

    The hint `levels` keeps the semantic quantizer as its first level, and acoustic ones after it; 0, which only
    training draws, lets an item's values pass unrounded.
    """

    has_first = True

    def __init__(self, config: SplitConfig) -> None:
        super().__init__()
        self.config: SplitConfig = config
        self.count, self.shared = 2, False
        self.parts = nn.ModuleList(quantizers.build(inner) for inner in (config.semantic, config.acoustic))
        semantic, acoustic = self._part(0), self._part(1)
        for part in (semantic, acoustic):
            refuse_inner(part)
        if not (semantic.codebook_sizes and acoustic.codebook_sizes):
            raise ValueError("split.semantic and split.acoustic must both have codes. Use vq, fsq or rq, say.")
        self.codebook_sizes = semantic.codebook_sizes + acoustic.codebook_sizes
        self.depth, self.drops = 1 + acoustic.depth, acoustic.drops
        self.learns = semantic.learns or acoustic.learns
        self.noisy = semantic.noisy or acoustic.noisy
        dim = config.inner_dim or config.dim
        # Without a bias: a part that is dropped, and so is zero, adds nothing.
        self.project_in = nn.ModuleList(nn.Linear(config.dim, dim, bias=False) for _ in range(2))
        self.project_out = nn.ModuleList(nn.Linear(dim, config.dim, bias=False) for _ in range(2))

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        levels = context.levels
        passes = levels == 0 if levels is not None and self.config.bypass else None
        if levels is not None and passes is not None:
            levels = levels.masked_fill(passes, self.depth)  # coded in full, so that the codes learn from them too
        contexts = context._replace(levels=None), self._acoustic(context, levels, z)
        outs = [self._part(i)(self.project_in[i](z), **contexts[i]._asdict()) for i in range(2)]
        first, rest = (self.project_out[i](out.values) for i, out in enumerate(outs))
        values = first + rest
        if passes is not None:
            values = values.where(~passes[:, None, None], self.relax(z))
        losses: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        for i, out in enumerate(outs):
            add_losses(losses, out.losses)
            stats |= prefixed(i, out.stats)
        return Quantized(values, torch.cat([out.ids for out in outs], 1), losses, stats, first)

    def relax(self, z: Tensor) -> Tensor:
        parts = [self._part(i).relax(self.project_in[i](z.float())) for i in range(2)]
        return self.project_out[0](parts[0]) + self.project_out[1](parts[1])

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        count = len(self._part(0).codebook_sizes)
        if not count <= ids.shape[1] <= len(self.codebook_sizes):
            raise ValueError(
                f"ids have {ids.shape[1]} levels, but this quantizer takes {count} to {len(self.codebook_sizes)}: "
                f"{count} semantic, which cannot be left out, and then acoustic ones."
            )
        values = self.project_out[0](self._part(0).decode(ids[:, :count], grid=context.grid))
        if ids.shape[1] == count:
            return values
        return values + self.project_out[1](self._part(1).decode(ids[:, count:], grid=context.grid))

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor | None:
        drawn = self._part(1).draw_levels(count, generator)
        levels = None if drawn is None else drawn + 1
        if not self.config.bypass:
            return levels
        passes = torch.rand(count, generator=generator) < self.config.bypass
        return (torch.full((count,), self.depth) if levels is None else levels).masked_fill(passes, 0)

    def _acoustic(self, context: Context, levels: Tensor | None, z: Tensor) -> Context:
        """What the acoustic part is told: the levels that are left to it, or a mask where it has no levels to drop."""
        own = context._replace(levels=None, seed=None if context.seed is None else context.seed + 1)
        if levels is None:
            return own
        if self._part(1).depth > 1:
            return own._replace(levels=levels - 1)
        kept = (levels > 1)[:, None].expand(z.shape[:2])
        return own._replace(mask=kept if context.mask is None else kept & context.mask, valid=None)
