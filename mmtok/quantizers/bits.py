"""What quantizers by signs share: corners of a hypercube as codes, which are searched by looking at d numbers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.exporting import exporting
from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig
from mmtok.quantizers.digits import check_digits, check_dropout, draw, leading, whole
from mmtok.quantizers.entropy import JointSum, binary_entropy, negated_entropy, weights


@dataclass(frozen=True)
class BitsConfig(QuantizerConfig):
    """Fields of every quantizer by signs."""

    label: ClassVar[str]
    """Its name, for messages."""

    bits: int = 10
    """Signs a code has; the codebook size is 2 ** bits."""
    entropy_weight: float = 0.01
    """Weight of both entropies: low for each sample, high for the mean over the batch. 0 leaves them out. Beside an
    error of about 0.02 (24 dB) the 0.1 of other implementations drowns the picture."""
    diversity: float = 1.0
    """Factor of the entropy of the mean beside that of the samples (gamma of the papers)."""
    temperature: float = 1.0
    """Softness of the assignment in the entropies: minus squared distances over it are the logits."""
    commitment_weight: float = 0.0
    """Weight of the squared distance of the latents from their code. The entropy of the samples does the same work."""
    dropout: float = 0.0
    """Share of training items that keep only their first n bits, n uniform in 1 .. bits, so that the first bits are a
    code of a smaller codebook (`prefix`). The trainer draws. Usage counts the items that keep all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bits <= 24:
            name = self.label
            raise ValueError(f"{name}.bits must be 1 to 24, got {self.bits}. Use product with inner {name} for more.")
        check_dropout(self.label, self.dropout)
        if self.temperature <= 0:
            raise ValueError(f"{self.label}.temperature must be above 0, got {self.temperature}")


class Bits(Quantizer):
    """The corners of a hypercube of `bits` dimensions; one level of ids, the first bit most significant.

    Latents are projected to the sphere through the corners. Without it the encoder's scale drifts, the entropies
    saturate and their gradient dies (image.md trap 12).
    """

    side: float = 1.0
    """Half the side of the cube: what a coordinate of a corner is, but for its sign."""
    strides: Tensor

    def __init__(self, config: BitsConfig) -> None:
        super().__init__()
        self.settings = config
        self.codebook_sizes, self.digits = (2**config.bits,), config.bits
        self.drops_digits = config.dropout > 0
        self.project_in = nn.Linear(config.dim, config.bits)
        self.project_out = nn.Linear(config.bits, config.dim)
        # Persistent, though derivable: loaders that build on the meta device restore only what is saved.
        self.register_buffer("strides", 2 ** torch.arange(config.bits - 1, -1, -1))

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        latents = self._latents(z)
        bits = latents.detach() > 0  # zero is a cleared bit, always
        corners = (bits * 2.0 - 1.0) * self.side
        ids = (bits * self.strides).sum(-1)
        straight = corners + (latents - latents.detach())  # adds an exact zero: the values are those of `decode`
        losses = self._losses(latents, corners, context)
        counted = whole(context.digits, self.digits, context.mask)
        stats = self._stats(ids, bits, counted)
        if context.digits is not None:
            assert counted is not None
            straight = straight * leading(context.digits, self.digits)
            ids = ids.where(counted, -1)
        return Quantized(self.project_out(straight), ids[:, None], losses, stats)

    def relax(self, z: Tensor) -> Tensor:
        return self.project_out(self._latents(z.float()))

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return self.project_out(self._corners(ids[:, 0].clamp(min=0)))

    def draw_digits(self, count: int, generator: torch.Generator) -> Tensor | None:
        return draw(count, self.digits, self.settings.dropout, generator)

    @torch.no_grad()
    def prefix(self, digits: int) -> Quantizer:
        check_digits(digits, self.digits)
        small = type(self)(replace(self.settings, bits=digits)).to(self.strides.device)
        small.project_in.weight.copy_(self.project_in.weight[:digits])
        small.project_in.bias.copy_(self.project_in.bias[:digits])
        # Corners on a sphere lie nearer to zero the more of them there are.
        small.project_out.weight.copy_(self.project_out.weight[:, :digits] * (self.side / small.side))
        small.project_out.bias.copy_(self.project_out.bias)
        return small.train(self.training)

    def code_table(self) -> Tensor:
        return self._corners(torch.arange(self.codebook_sizes[0], device=self.strides.device))

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        return 4 * self.side * self._latents(z.float()).abs().amin(-1)  # (x + side)^2 - (x - side)^2

    def _corners(self, ids: Tensor) -> Tensor:
        """Ids (...) -> corners (..., bits)."""
        return ((ids[..., None] // self.strides % 2) * 2.0 - 1.0) * self.side

    def _latents(self, z: Tensor) -> Tensor:
        return F.rms_norm(self.project_in(z), (self.settings.bits,), eps=1e-6) * self.side

    def _groups(self) -> tuple[int, ...]:
        """Bits of which the entropy of the mean is taken together; those of the groups add up."""
        return (self.settings.bits,)

    def _losses(self, latents: Tensor, corners: Tensor, context: Context) -> dict[str, Tensor]:
        """The terms that have a weight."""
        config, losses = self.settings, {}
        # A program that is exported gives ids alone, and could not hold the loop over chunks.
        if config.entropy_weight and not exporting():
            # A bit is set with probability sigmoid of the difference of two squared distances.
            logits = latents * (4 * self.side / config.temperature)
            rows = logits.flatten(0, 1)
            weight, together = weights(rows, context), self.training and torch.is_grad_enabled()
            # Side by side: their entropies add up by themselves, and go over the ranks as one.
            sums = torch.cat([JointSum.apply(part, weight).flatten() for part in rows.split(self._groups(), 1)])
            negated = negated_entropy(sums, len(rows), context, together=together)
            losses["codebook_entropy"] = config.entropy_weight * config.diversity * negated
            losses["sample_entropy"] = config.entropy_weight * context.mean(binary_entropy(logits).sum(-1))
        if config.commitment_weight:
            distance = (latents - corners).square().mean(-1)
            losses["commitment"] = config.commitment_weight * context.mean(distance)
        return losses

    def _stats(self, ids: Tensor, bits: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """How often each code, and each pair of bits, was set."""
        valid = torch.ones_like(ids) if mask is None else mask.long().expand_as(ids)
        counts = valid.new_zeros(self.codebook_sizes[0]).index_add_(0, ids.flatten(), valid.flatten())
        ones = (bits * valid[..., None]).flatten(0, 1).float()
        return {"counts": counts, "bit_products": ones.T @ ones}
