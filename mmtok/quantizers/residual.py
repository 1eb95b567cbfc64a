"""Residual quantization: each level codes what the levels before it left over. Any quantizer can be the level.

Lee et al. 2022, RQ-VAE (arXiv 2203.01941); Zeghidour et al. 2021, SoundStream (arXiv 2107.03312), whose level dropout
makes every number of levels a usable bitrate. Bits add up at the price of one search a level, and later levels mean
less than earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers import beam as beams
from mmtok.quantizers.base import Context, Quantized, QuantizerConfig, quantizers, register_quantizer
from mmtok.quantizers.estimators import estimate
from mmtok.quantizers.lookup import Lookup, LookupConfig
from mmtok.quantizers.nested import Nested, add_losses, prefixed
from mmtok.quantizers.vq import VQConfig


@dataclass(frozen=True)
class ResidualConfig(QuantizerConfig):
    inner: Any = "vq"
    """The quantizer of a level: a name, a block with a name, or a config. Its `dim` is filled in."""
    depth: int = 8
    """Number of levels."""
    shared: bool = False
    """One codebook for all levels."""
    dropout: float = 0.0
    """Share of training items that keep only their first n levels, n uniform in 1 .. depth. The trainer draws."""
    absent: Literal["zero", "learned"] = "zero"
    """What stands for a dropped level, which is never the first: nothing, or a learned vector that starts at zero."""
    residual_grad: Literal["stop", "pass"] = "stop"
    """Whether the residual carries a gradient through the levels before it. With `stop` every level's commitment pulls
    on the latents; with `pass` the straight-through steps cancel, and only the first one's does."""
    shrink: float = 1.0
    """Level l sees its residual divided by shrink^l. A fixed grid needs it, as fsq: about 1 / levels."""
    beam: int = 1
    """Paths of codes that are followed over the levels at encode: 1 takes the nearest code of each level. It needs an
    inner with a table of codes, as vq, simvq and ibq."""
    train_beam: int = 1
    """Paths that are followed in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "inner", quantizers.parse(self.inner, "inner", dim=self.dim))
        _check(self.depth, self.dropout, self.shrink, self.beam, self.train_beam)
        _check_absent(self.absent, self.dropout, self.depth)
        if max(self.beam, self.train_beam) > 1 and not isinstance(self.inner, LookupConfig):
            name = quantizers.name_of(self.inner)
            raise ValueError(f"beam follows codes of a table, and '{name}' has none. Leave beam out, or use inner vq.")
        if isinstance(self.inner, LookupConfig):
            _check_width(max(self.beam, self.train_beam), self.inner.codebook_size, self.depth)
        if self.inner.dim != self.dim:
            raise ValueError(f"inner.dim={self.inner.dim} does not fit dim={self.dim}. Leave inner.dim out.")


def _check(depth: int, dropout: float, shrink: float = 1.0, beam: int = 1, train_beam: int = 1) -> None:
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout is a share of the items, in [0, 1], got {dropout}")
    if not 0 < shrink <= 1:
        raise ValueError(f"shrink must be in (0, 1], got {shrink}")
    if min(beam, train_beam) < 1:
        raise ValueError(f"beam and train_beam must be 1 path or more, got {beam} and {train_beam}")


def _check_absent(absent: str, dropout: float, depth: int) -> None:
    if absent == "learned" and (dropout == 0 or depth == 1):
        raise ValueError(
            f"absent=learned has nothing to learn from: dropout={dropout:g} and depth={depth} drop no level. "
            "Set dropout above 0 and a depth of 2 or more, or leave absent out."
        )


def _check_width(beam: int, codes: int, depth: int) -> None:
    # More paths than codes are no mistake: the second level has codes^2 of them.
    if depth * log2(codes) < log2(beam) - 1e-9:
        raise ValueError(
            f"beam={beam} is more than the {codes**depth} paths that {depth} levels of {codes} codes have. Use "
            f"{codes ** max(depth - 1, 0)}, which finds the best, or fewer."
        )


@register_quantizer("residual", ResidualConfig)
class Residual(Nested):
    """`depth` quantizers in a row; ids level by level, the levels of a nested inner one together."""

    learns = True
    has_first = True

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__()
        self.config: QuantizerConfig = config
        self.settings = config
        built = self._build(config.inner, config.depth, config.shared)
        self.codebook_sizes = built[0].codebook_sizes * config.depth
        self.depth, self.drops = config.depth, config.dropout > 0
        self.straight_through, self.rotates = built[0].straight_through, built[0].rotates
        self.learns, self.noisy = built[0].learns, built[0].noisy
        self.absent = nn.Parameter(torch.zeros(config.depth - 1, config.dim)) if config.absent == "learned" else None

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        passes = self.settings.residual_grad == "pass"
        once = (self.straight_through or self.rotates) and not passes
        masks, counts = self._masks(z, context)
        values, residual, first = torch.zeros_like(z), z, None
        paths = self._search(z, masks if context.levels is not None else None)
        depth = self.settings.depth
        ids: list[Tensor] = []
        losses: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        for level in range(depth):
            scale = self.settings.shrink**level
            seed = None if context.seed is None else context.seed + level
            hints = {"grid": context.grid, "seed": seed, "valid": counts[level], "chosen": paths[level]}
            out = self._part(level)(residual / scale if level else residual, masks[level], **hints)
            value = out.values * scale if level else out.values
            first = value if first is None else first
            left = residual - (value if passes else value.detach())
            energies = {"input_sq": _energy(residual, masks[level]), "residual_sq": _energy(left, masks[level])}
            # Each straight-through step is the identity already: with the residual's gradient stopped, a second one
            # on top would count the decoder's gradient once a level.
            values = values + (value.detach() if level and once else value)
            ids.append(out.ids)
            add_losses(losses, out.losses)
            stats |= prefixed(level, out.stats | energies)
            residual = left
        if self.rotates and once:  # one turn onto the sum, for the same reason
            values = estimate("rotate", z, values)
        if self.absent is not None:
            # Without dropped levels too: under DDP a parameter is part of every pass, or of none.
            kept = z.new_full((z.shape[0], depth), True, dtype=torch.bool)
            if context.levels is not None:
                kept = context.levels[:, None] > torch.arange(depth, device=z.device)
            values = values + self._stand_in(self.absent, kept[:, :, None])
        return Quantized(values, torch.cat(ids, 1), losses, stats, first)

    def relax(self, z: Tensor) -> Tensor:
        # The levels after the first add what the first one's rounding left, and without rounding nothing is left but
        # what its projections cannot carry.
        values, residual = torch.zeros_like(z, dtype=torch.float32), z.float()
        for level in range(self.settings.depth):
            scale = self.settings.shrink**level
            value = self._part(level).relax(residual / scale) * scale
            values, residual = values + value, residual - value
        return values

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        each = len(self._part(0).codebook_sizes)
        if each == 0 or ids.shape[1] == 0 or ids.shape[1] % each:
            depth = self.settings.depth
            takes = f"1 to {depth}" if each == 1 else ", ".join(str(each * n) for n in range(1, depth + 1))
            raise ValueError(
                f"ids have {ids.shape[1]} levels, but this quantizer takes {takes}. Leave out the last ones first."
            )
        values = [
            self._part(level).decode(part, grid=context.grid) * self.settings.shrink**level
            for level, part in enumerate(ids.split(each, 1))
        ]
        total = torch.zeros_like(values[0])
        for value in values:  # in the order of the forward pass, so that the sum is the same bit by bit
            total = total + value
        if self.absent is not None:
            kept = F.pad(ids[:, ::each] >= 0, (0, 0, 0, self.settings.depth - len(values)))
            total = total + self._stand_in(self.absent, kept)
        return total

    def _stand_in(self, absent: Tensor, kept: Tensor) -> Tensor:
        """(B, T or 1, D), the sum of what stands for levels that are not `kept` (B, depth, T or 1); nothing does where
        all are gone, which is no code.
        """
        missing = (~kept[:, 1:] & kept[:, :1]).to(absent.dtype)
        return torch.stack([missing[:, level, :, None] * absent[level] for level in range(len(absent))]).sum(0)

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0) -> None:
        # Level by level, each on what the fitted ones before it leave.
        if self.settings.shared and self.settings.depth > 1:
            raise ValueError("one codebook for all levels cannot be fitted level by level. Leave shared out.")
        residual = z
        for level in range(self.settings.depth):
            part, scale = self._part(level), self.settings.shrink**level
            part.fit(residual / scale, seed + level)
            residual = residual - part.decode(part.encode(residual[None] / scale))[0] * scale

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor | None:
        if not self.settings.dropout:
            return None
        depth = self.settings.depth
        drops = torch.rand(count, generator=generator) < self.settings.dropout
        return torch.randint(1, depth + 1, (count,), generator=generator).where(drops, depth)

    def _search(self, z: Tensor, masks: Sequence[Tensor | None] | None) -> list[Tensor | None]:
        """Codes (B, T) of each level by beam search, or None where each level takes its nearest."""
        depth, width = self.settings.depth, self.settings.train_beam if self.training else self.settings.beam
        if width == 1:
            return [None] * depth
        levels = [cast(Lookup, self._part(level)) for level in range(depth)]
        kept = None if masks is None else torch.stack([mask for mask in masks if mask is not None], -1).flatten(0, 1)
        scales = [self.settings.shrink**level for level in range(depth)]
        return list(beams.search(z.flatten(0, 1), levels, scales, kept, width).view(*z.shape[:2], depth).unbind(-1))

    def _masks(self, z: Tensor, context: Context) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Mask and count of valid latents of each level; with dropped levels all counts in one collective."""
        depth = self.settings.depth
        if context.levels is None:
            return [context.mask] * depth, [context.valid] * depth
        kept = context.levels > torch.arange(depth, device=z.device)[:, None]
        masks = kept[..., None].expand(depth, *z.shape[:2])
        if context.mask is not None:
            masks = masks & context.mask
        return list(masks), list(self._count(masks))


def _energy(x: Tensor, mask: Tensor | None) -> Tensor:
    square = x.detach().square().sum(-1)
    return (square if mask is None else square * mask).sum()


@dataclass(frozen=True)
class RQConfig(VQConfig):
    """`residual` over `vq`, with the fields of both side by side."""

    depth: int = 8
    """Number of levels."""
    shared: bool = False
    """One codebook for all levels."""
    dropout: float = 0.0
    """Share of training items that keep only their first n levels."""
    absent: Literal["zero", "learned"] = "zero"
    """What stands for a dropped level: nothing, or a learned vector."""
    residual_grad: Literal["stop", "pass"] = "stop"
    """Whether the residual carries a gradient through the levels before it."""
    beam: int = 1
    """Paths of codes that are followed over the levels at encode."""
    train_beam: int = 1
    """Paths that are followed in training."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.depth, self.dropout, beam=self.beam, train_beam=self.train_beam)
        _check_absent(self.absent, self.dropout, self.depth)
        _check_width(max(self.beam, self.train_beam), self.codebook_size, self.depth)


@register_quantizer("rq", RQConfig)
class RQ(Residual):
    """Residual vector quantization."""

    def __init__(self, config: RQConfig) -> None:
        inner = config.as_vq(config.dim)
        names = ("depth", "shared", "dropout", "absent", "residual_grad", "beam", "train_beam")
        fields = {name: getattr(config, name) for name in names}
        super().__init__(ResidualConfig(config.dim, inner, **fields))
        self.config = config
