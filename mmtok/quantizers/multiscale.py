"""Multi-scale residual quantization: a picture coded coarse to fine, each scale what those before it left over.

Tian et al. 2024, "Visual Autoregressive Modeling: Scalable Image Generation via Next-Scale Prediction" (VAR, arXiv
2404.02905): one codebook, residuals averaged down to each scale's grid, codes brought up bicubically and mended by a
convolution. A model can then predict a whole scale at a time. The codes of a position see the whole grid, so pictures
come without masks and not in tiles, and there are more codes than positions: 680 for 16 x 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, Quantizer, full_precision, register_quantizer
from mmtok.quantizers.estimators import estimate
from mmtok.quantizers.given import check_ids
from mmtok.quantizers.nested import add_losses
from mmtok.quantizers.vq import VQ, VQConfig


@dataclass(frozen=True)
class MultiScaleConfig(VQConfig):
    scales: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    """Sides of the grids, rising. The last stands for the latents' own grid, whatever its size; the others are parts of
    it: 4 of 16 is a quarter of the rows and of the columns, rounded, and at least one."""
    mends: int = 4
    """Convolutions that mend what was brought up, shared by neighbouring scales; at most one a scale; 0 means none."""
    mend_ratio: float = 0.5
    """Share of a convolution in what it gives; the rest is what came in."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or min(self.scales) < 1 or list(self.scales) != sorted(set(self.scales)):
            raise ValueError(f"scales must rise and be 1 or more, got {list(self.scales)}. Use [1, 2, 4, 8], say.")
        if self.mends < 0:
            raise ValueError(f"mends must be 0 or more, got {self.mends}")
        if not 0 <= self.mend_ratio <= 1:
            raise ValueError(f"mend_ratio is a share, in [0, 1], got {self.mend_ratio}")
        if self.code_dim not in (0, self.dim) or self.l2:
            raise ValueError("multiscale adds codes up as they are. Leave out code_dim and l2; cosine is possible.")


@register_quantizer("multiscale", MultiScaleConfig)
class MultiScale(Quantizer):
    """Ids (B, 1, sum of h * w over the scales), scale by scale; the hint `grid` is needed.

    The hint `levels` keeps the first scales: the others have no ids and add nothing.
    """

    learns = True
    pointwise = False

    def __init__(self, config: MultiScaleConfig) -> None:
        super().__init__()
        self.config: MultiScaleConfig = config
        self.codebook_sizes = (config.codebook_size,)
        self.depth = len(config.scales)
        self.straight_through, self.rotates = config.gradient == "straight", config.gradient == "rotate"
        self.codes = VQ(config.as_vq(config.dim))
        count = min(config.mends, self.depth)
        self.mends = nn.ModuleList(nn.Conv2d(config.dim, config.dim, 3, padding=1) for _ in range(count))

    def scales(self, grid: tuple[int, int] | None) -> tuple[tuple[int, int], ...]:
        if grid is None:
            raise ValueError(
                "multiscale codes grids, and here is none: give grid=(H, W). Sounds need another quantizer."
            )
        last = self.config.scales[-1]
        parts = [(max(1, round(grid[0] * s / last)), max(1, round(grid[1] * s / last))) for s in self.config.scales]
        return (*parts[:-1], grid)

    def decode(self, ids: Tensor, **hints: Any) -> Tensor:
        check_ids(ids, self.codebook_sizes)
        with full_precision(ids.device.type):  # every position has a value: none of the ids is of one position alone
            return self.dequantize(ids, Context(**hints))

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        sizes, grid, config = self.scales(context.grid), context.grid, self.config
        assert grid is not None
        if grid[0] * grid[1] != z.shape[1]:
            raise ValueError(f"grid={grid} does not hold {z.shape[1]} positions.")
        kept, counts = self._kept(context.levels, z)
        total, ids = torch.zeros_like(z), []
        losses: dict[str, Tensor] = {}
        stats: dict[str, Tensor] = {}
        for number, size in enumerate(sizes):
            seen = Context(kept[number], valid=counts[number])
            rest = _down(z - total.detach(), grid, size)
            positions = rest.shape[1]
            mask = None if seen.mask is None else seen.mask[:, :1].expand(-1, positions)
            valid = None if seen.valid is None else seen.valid * (positions / z.shape[1])
            out = self.codes(rest, mask, valid=valid)
            # Looked up again, with the gradient to codes that learn by one.
            total = total + self._bring(out.ids[:, 0], number, size, grid)
            ids.append(out.ids)
            stats = self.codes.merge(stats, out.stats)
            terms = {name: term for name, term in out.losses.items() if name.endswith("_entropy")}
            # Of the sum so far, and not of what is left at the scale's own grid, which no convolution has mended.
            terms["commitment"] = config.commitment_weight * seen.mean((z - total.detach()).square().mean(-1))
            if config.mends or config.learn == "gradient":
                terms["codebook"] = config.codebook_weight * seen.mean((total - z.detach()).square().mean(-1))
            add_losses(losses, terms, 1 / len(sizes))
        return Quantized(estimate(config.gradient, z, total), torch.cat(ids, 2), losses, stats)

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        sizes, grid = self.scales(context.grid), context.grid
        assert grid is not None
        counts = [height * width for height, width in sizes]
        if ids.shape[1] != 1 or ids.shape[2] != sum(counts):
            raise ValueError(f"ids (B, {ids.shape[1]}, {ids.shape[2]}) are not of scales {list(sizes)}: {sum(counts)}.")
        total = ids.new_zeros(ids.shape[0], grid[0] * grid[1], self.config.dim, dtype=torch.float32)
        for number, part in enumerate(ids[:, 0].split(counts, 1)):  # in the order of the forward pass: equal bit by bit
            total = total + self._bring(part, number, sizes[number], grid)
        return total

    def code_table(self) -> Tensor:
        return self.codes.code_table()

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        self.codes.absorb(stats)

    def _bring(self, ids: Tensor, number: int, size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
        """Ids (B, h * w) of a scale -> what it adds to the values (B, H * W, D): nothing where ids are -1."""
        x = self.codes.decode(ids[:, None]).transpose(1, 2).unflatten(2, size)
        if size != grid:
            x = F.interpolate(x, grid, mode="bicubic")
        if self.mends:
            share = self.config.mend_ratio
            x = x * (1 - share) + self._mend(number)(x) * share
        # A convolution's bias must not stand where a scale was left out.
        return x.flatten(2).transpose(1, 2).where(ids[:, :1, None] >= 0, 0.0)

    def _mend(self, number: int) -> nn.Module:
        """The convolution of a scale: the one whose place among all of them is nearest to the scale's own."""
        count, place = len(self.mends), number / max(self.depth - 1, 1)
        margin = 1 / (3 * count) if count == 4 else 1 / (2 * count)  # as VAR places them
        step = (1 - margin - margin) / max(count - 1, 1)  # in VAR's order: scales 2 and 7 of 10 are ties
        return self.mends[min(range(count), key=lambda i: abs(margin + i * step - place))]

    def _kept(self, levels: Tensor | None, z: Tensor) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """Mask (B, T) of the items that have each scale, and their positions a rank; in one collective."""
        if levels is None:
            return [None] * self.depth, [None] * self.depth
        kept = levels > torch.arange(self.depth, device=z.device)[:, None]
        masks = kept[..., None].expand(self.depth, *z.shape[:2])
        return list(masks), list(self._count(masks))


def _down(x: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """x (B, H * W, D) -> (B, h * w, D), means over areas."""
    if size == grid:
        return x
    return F.interpolate(x.transpose(1, 2).unflatten(2, grid), size, mode="area").flatten(2).transpose(1, 2)
