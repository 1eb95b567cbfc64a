"""What every quantizer is: latents in, values and ids out. Precision, masks and levels are handled here, once."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmtok.exporting import exporting
from mmtok.quantizers.given import check_each, check_fields, check_ids, check_latents
from mmtok.reduce import merge_stats, per_rank, reduce_stats
from mmtok.registry import Registry


@dataclass(frozen=True)
class QuantizerConfig:
    """Fields every quantizer has."""

    dim: int
    """Channels of the latents that come in and of the values that go out."""

    def __post_init__(self) -> None:
        check_fields(self)


class Context(NamedTuple):
    """What a call knows besides its latents. Most quantizers need none of it."""

    mask: Tensor | None = None
    """(B, T) bool, True where there is a latent."""
    grid: tuple[int, int] | None = None
    """(H, W) with H * W = T, for quantizers that see two dimensions."""
    levels: Tensor | None = None
    """(B,) int64, levels to keep of each item, 1 .. depth: drawn by the trainer for the whole global batch, or chosen
    at encode. Callers may give an int, which stands for as many. 0, which keeps none, is for what draws or nests."""
    seed: Tensor | None = None
    """(B,) int64, of the noise of each item, for quantizers that add some; None means none. Drawn by the trainer for
    the whole global batch. Callers may give an int, which stands for as many seeds."""
    digits: Tensor | None = None
    """(B,) int64, leading digits to keep of each item's codes, 1 .. digits; the others read as zero. Drawn by the
    trainer for the whole global batch. Callers may give an int, which stands for as many."""
    chosen: Tensor | None = None
    """(B, T) int64, codes to take instead of the nearest, where a search over levels has chosen; of tables of codes."""
    valid: Tensor | None = None
    """() float32, valid latents a rank, which losses divide by; None where there is no mask. Filled in by the base."""

    def mean(self, values: Tensor) -> Tensor:
        """Mean of a term (B, T) over the valid latents of all ranks, as DDP's average of gradients wants it."""
        if self.mask is None:
            return values.sum() / max(values.numel(), 1)  # an empty batch costs nothing
        assert self.valid is not None
        return (values * self.mask).sum() / self.valid


class Quantized(NamedTuple):
    """What a forward gives."""

    values: Tensor
    """(B, T, D) float32, with a gradient path to the input."""
    ids: Tensor
    """(B, L, T) int64, one row a level, in [0, codebook_sizes[level]), or -1 where there is no code."""
    losses: dict[str, Tensor]
    """Scalar terms to add to the objective, weighted already, named as in the log."""
    stats: dict[str, Tensor]
    """What `update` needs. Sums, so that ranks and accumulated batches add up."""
    first: Tensor | None = None
    """(B, T, D) what the first level alone decodes to, with its gradient path; None where there is one level."""


class Quantizer(nn.Module):
    """Maps latents z (B, T, D) to codes and back; knows nothing of pixels or samples.

    `forward` is a pure function: it may be called twice, recompiled, or thrown away with a bad step. Only `update`
    writes state. Subclasses write `quantize` and `dequantize`, and see float32 latents whose masked positions are zero.
    """

    config: QuantizerConfig
    codebook_sizes: tuple[int, ...]
    """Number of codes of each level of ids; empty where there are none."""
    learns: bool = False
    """Whether `update` changes anything. Where it does not, it costs no collective."""
    depth: int = 1
    """Levels that can be kept or dropped by the hint `levels`, the last first; 1 where ids are all or nothing."""
    drops: bool = False
    """Whether training drops levels (`draw_levels`), so that each number of them is of use."""
    digits: int = 1
    """Digits of a code whose leading ones are a code of a smaller codebook (`prefix`); 1 where there is no such."""
    drops_digits: bool = False
    """Whether training drops digits (`draw_digits`), so that each number of them is of use."""
    straight_through: bool = False
    """Whether the gradient of the values with respect to the latents is the identity."""
    rotates: bool = False
    """Whether that gradient is the rotation trick's, so that levels of it can be turned as one."""
    has_first: bool = False
    """Whether there is a first of several levels, whose values come apart from the others (`Quantized.first`)."""
    noisy: bool = False
    """Whether the hint `seed` changes anything."""
    pointwise: bool = True
    """Whether a position's codes depend on its own latent alone, so that a picture may come in tiles."""

    def forward(self, z: Tensor, mask: Tensor | None = None, **hints: Any) -> Quantized:
        """Latents (B, T, D), mask (B, T) -> values, ids, losses, stats. Hints: `grid`, `levels`, `seed`.

        Latents must be finite, which is not looked at: the trainer stops at the gradient that NaN leaves.

        Raises:
            ValueError: latents of another shape, or hints that do not fit.
        """
        check_latents(z, self.config.dim)
        if hints.get("levels") is not None:
            hints["levels"] = self._each("levels", hints["levels"], z, 0, self.depth)
        if hints.get("digits") is not None:
            hints["digits"] = self._each("digits", hints["digits"], z, 1, self.digits)
        if mask is not None and not self.pointwise:
            name = quantizers.name_of(self.config)
            raise ValueError(f"'{name}' codes whole grids, so it takes no mask. Encode signals of one size together.")
        if isinstance(hints.get("seed"), int):
            # Apart in the upper half: parts of a nested quantizer count in the lower one.
            hints["seed"] = (torch.arange(z.shape[0], device=z.device) << 32) + hints["seed"]
        # Nearest codes and integer digits are wrong in half precision, whatever the encoder runs in.
        with full_precision(z.device.type):
            if mask is None:
                return self.quantize(z.float(), Context(**hints))
            if hints.get("valid") is None:
                hints["valid"] = self._count(mask)
            # `where`, not a product: a NaN in padding times zero is still NaN.
            out = self.quantize(z.float().where(mask[..., None], 0.0), Context(mask, **hints))
            values = out.values.where(mask[..., None], 0.0)
            return out._replace(values=values, ids=out.ids.masked_fill(~mask[:, None], -1))

    @torch.no_grad()
    def encode(self, z: Tensor, mask: Tensor | None = None, **hints: Any) -> Tensor:
        """(B, T, D) -> ids (B, L, T)."""
        if hints.get("levels") is not None:
            hints["levels"] = self._each("levels", hints["levels"], z, 1, self.depth)
        return self(z, mask, **hints).ids

    def decode(self, ids: Tensor, **hints: Any) -> Tensor:
        """ids (B, L, T), -1 where there is none -> values (B, T, D), equal to what `forward` gave.

        Raises:
            ValueError: ids of another shape or, on a CPU outside a compiler, outside the codebooks.
        """
        check_ids(ids, self.codebook_sizes)
        with full_precision(ids.device.type):
            return self.dequantize(ids, Context(**hints)).where(ids[:, 0, :, None] >= 0, 0.0)

    def scales(self, grid: tuple[int, int] | None) -> tuple[tuple[int, int], ...] | None:
        """Grids whose ids stand one after the other in T, of latents on `grid`; None where ids are on `grid` itself."""
        return None

    def relax(self, z: Tensor) -> Tensor:
        """What z (B, T, D) would become if nothing were rounded: the values but for the choice of codes.

        Projections and norms stay, since the decoder never saw latents without them. The error of decoding this instead
        of the values is what the quantizer costs.
        """
        return z.float()

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        """Float32 latents -> Quantized. Written by the subclass."""
        raise NotImplementedError

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        """Ids -> values (B, T, D). Written by the subclass."""
        raise NotImplementedError

    def code_table(self) -> Tensor:
        """(K, D) float32, the code behind each id in the dimension where codes are compared; of one level only."""
        raise NotImplementedError

    def margins(self, z: Tensor) -> Tensor:
        """(B, T, D) -> (B, T), how far each choice of a code was from another one; of one level only.

        The difference of squared distances to second-best and best code, or of a grid, steps to the next point.
        Ids are promised only where it is above 1e-4. Infinite by default: every id is promised.
        """
        return z.new_full(z.shape[:2], torch.inf)

    def draw_levels(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Levels to keep (count,) of as many items in training, or None for all; drawn by the trainer."""
        return None

    def draw_digits(self, count: int, generator: torch.Generator) -> Tensor | None:
        """Leading digits to keep (count,) of as many items in training, or None for all; drawn by the trainer."""
        return None

    def prefix(self, digits: int) -> Quantizer:
        """The quantizer of the codes' leading digits: its ids are those of this one over the product of the others.

        Raises:
            ValueError: codes have no digits, or not as many.
        """
        name = quantizers.name_of(self.config)
        raise ValueError(f"codes of '{name}' have no digits that could be left out. Use lfq, bsq or fsq with dropout.")

    def merge(self, stats: Mapping[str, Tensor], more: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Stats of two accumulated batches as one. `stats` may be empty."""
        return merge_stats(stats, more)

    @torch.no_grad()
    def update(self, stats: Mapping[str, Tensor]) -> None:
        """Changes state after an optimiser step, by what all ranks saw: one collective, however deep the nesting.

        (A k-means initialisation, once in a run, is one more.)
        """
        if self.learns:
            self.absorb(reduce_stats(stats))

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        """Changes state by stats summed over ranks. Written by subclasses that set `learns`."""
        raise NotImplementedError

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0) -> None:
        """Learn all codes from latents z (N, D) at once, by clustering; for tokenizers that are fitted, not trained.

        Raises:
            ValueError: the codes of this quantizer are no clusters.
        """
        name = quantizers.name_of(self.config)
        raise ValueError(f"'{name}' has no codes that are fitted without training. Use vq, rq or pq, or train it.")

    def revive(self) -> bool:
        """Restart unused codes from now on, as the trainer asks at a collapse; False where no code could restart."""
        inner = [module for module in self.modules() if isinstance(module, Quantizer) and module is not self]
        return any([module.revive() for module in inner])  # noqa: C419, every one of them is asked

    def _each(self, name: str, value: Tensor | int, z: Tensor, least: int, most: int) -> Tensor:
        """A hint of levels or digits as one number an item, checked."""
        if isinstance(value, int):
            if not least <= value <= most:
                raise ValueError(f"{name}={value}, but this quantizer has {name} to keep from {least} to {most}.")
            value = torch.full(z.shape[:1], value, device=z.device)
        check_each(name, value, z, least, most)
        return value

    def _count(self, mask: Tensor) -> Tensor:
        """Valid latents a rank of mask (..., B, T), 1 at least. Ranks hold equal numbers only without a mask, and meet
        only in training.
        """
        # One rank alone may encode, and must not wait.
        return per_rank(mask.sum((-2, -1)).float(), together=self.training and torch.is_grad_enabled())


def full_precision(device: str) -> AbstractContextManager[Any]:
    """No autocast inside."""
    # A program that is exported has no autocast around it, and could not hold this.
    return nullcontext() if exporting() else torch.autocast(device, enabled=False)


quantizers: Registry[QuantizerConfig, Quantizer] = Registry("quantizer", QuantizerConfig)
register_quantizer = quantizers.register
