"""Finite scalar quantization: round a few bounded channels; the grid is the codebook.

Mentzer et al. 2023, "Finite Scalar Quantization: VQ-VAE Made Simple" (arXiv 2309.15505).
There is no codebook to learn, so none to collapse; the price is a fixed, axis-aligned grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer
from mmtok.quantizers.digits import check_digits, check_dropout, draw, leading, whole
from mmtok.quantizers.given import readable

_GAIN = 1.7
"""sigmoid(1.7 x) is the distribution function of a standard normal to within 0.01, so that normal latents use all grid
points alike (as in iFSQ, arXiv 2601.17124). The paper's bound is a tanh, which is sigmoid(2 x)."""


@dataclass(frozen=True)
class FSQConfig(QuantizerConfig):
    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Grid points of each channel; their product is the codebook size. The paper advises 5 or more each."""
    project: bool = True
    """Linear layers from `dim` channels to the grid's and back. Without, `dim` is the number of levels: the encoder's
    last layer is the projection then, and the levels of a `residual` share it."""
    dropout: float = 0.0
    """Share of training items that keep only the leading digits of their codes, those of the last n channels, n uniform
    in 1 .. channels, so that these are a code of a smaller codebook (`prefix`). The trainer draws. Usage counts the
    items that keep all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.levels, default=0) < 2:
            raise ValueError(f"fsq.levels must each be at least 2, got {self.levels}")
        check_dropout("fsq", self.dropout)
        if not self.project and self.dim != len(self.levels):
            raise ValueError(
                f"fsq.project=false takes latents of as many channels as fsq.levels has: dim={self.dim}, but "
                f"{len(self.levels)} levels. Change either, or leave fsq.project out."
            )


@register_quantizer("fsq", FSQConfig)
class FSQ(Quantizer):
    """A grid of `prod(levels)` points; one level of ids, the grid index in mixed radix."""

    config: FSQConfig
    radix: Tensor
    strides: Tensor

    def __init__(self, config: FSQConfig) -> None:
        super().__init__()
        self.config = config
        self.codebook_sizes = (prod(config.levels),)
        self.digits = channels = len(config.levels)
        self.drops_digits = config.dropout > 0
        self.project_in = nn.Linear(config.dim, channels) if config.project else nn.Identity()
        self.project_out = nn.Linear(channels, config.dim) if config.project else nn.Identity()
        radix = torch.tensor(config.levels)
        # Persistent, though derivable: loaders that build on the meta device restore only what is saved.
        self.register_buffer("radix", radix)
        self.register_buffer("strides", radix.cumprod(0) // radix)

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        bounded = self._bound(self.project_in(z))
        if readable(z) and not bool(bounded.detach().isfinite().all()):
            # Of a few channels, so that it costs nothing; a NaN would become an index of no code.
            raise ValueError(
                "latents hold values that are not finite. Look at what made them: a rate too high, or data."
            )
        rounded = bounded.detach().round()
        # Integers from here: an index added up in bfloat16 is wrong from 2^8 on (image.md trap 11).
        ids = (rounded.long() * self.strides).sum(-1)
        digits = rounded + (bounded - bounded.detach())  # straight-through: this order adds an exact zero
        points, counted = self._spread(digits), whole(context.digits, self.digits, context.mask)
        stats = {"counts": self._counts(ids, counted)}
        if context.digits is not None:
            assert counted is not None
            points = points * leading(context.digits, self.digits).flip(-1)  # the last channel is most significant
            ids = ids.where(counted, -1)
        return Quantized(self.project_out(points), ids[:, None], {}, stats)

    def relax(self, z: Tensor) -> Tensor:
        return self.project_out(self._spread(self._bound(self.project_in(z.float()))))

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return self.project_out(self._points(ids[:, 0].clamp(min=0)))

    def draw_digits(self, count: int, generator: torch.Generator) -> Tensor | None:
        return draw(count, self.digits, self.config.dropout, generator)

    @torch.no_grad()
    def prefix(self, digits: int) -> Quantizer:
        check_digits(digits, self.digits)
        if not (isinstance(self.project_in, nn.Linear) and isinstance(self.project_out, nn.Linear)):
            raise ValueError("fsq without projections has no code of fewer digits. Use fsq.project=true.")
        small = FSQ(replace(self.config, levels=self.config.levels[-digits:])).to(self.radix.device)
        assert isinstance(small.project_in, nn.Linear)
        assert isinstance(small.project_out, nn.Linear)
        small.project_in.weight.copy_(self.project_in.weight[-digits:])
        small.project_in.bias.copy_(self.project_in.bias[-digits:])
        small.project_out.weight.copy_(self.project_out.weight[:, -digits:])
        small.project_out.bias.copy_(self.project_out.bias)
        return small.train(self.training)

    def code_table(self) -> Tensor:
        return self._points(torch.arange(self.codebook_sizes[0], device=self.radix.device))

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        bounded = self._bound(self.project_in(z.float()))
        return 0.5 - (bounded - bounded.round()).abs().amax(-1)

    def _points(self, ids: Tensor) -> Tensor:
        """Ids (...) -> grid points (..., channels) in [-1, 1]."""
        return self._spread((ids[..., None] // self.strides % self.radix).float())

    def _counts(self, ids: Tensor, mask: Tensor | None) -> Tensor:
        weight = torch.ones_like(ids, dtype=torch.float32) if mask is None else mask.float().expand_as(ids)
        return weight.new_zeros(self.codebook_sizes[0]).index_add_(0, ids.flatten(), weight.flatten())

    def _bound(self, x: Tensor) -> Tensor:
        """Squash each channel into [-0.499, radix - 0.501], so that rounding gives 0 .. radix - 1."""
        return (_GAIN * x).sigmoid() * (self.radix - 0.002) - 0.499

    def _spread(self, digits: Tensor) -> Tensor:
        """0 .. radix - 1 -> [-1, 1]."""
        return digits * (2 / (self.radix - 1)) - 1
