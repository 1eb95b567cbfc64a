"""Lookup-free quantization: one sign a channel, so that a code of d bits is searched by looking at d numbers.

Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (arXiv 2310.05737). Nothing is
looked up and nothing learned in a codebook; an entropy term keeps the bits decided and the codes in use. Both entropies
are exact and cheap: over the corners of a hypercube the softmax factorises into one probability a bit, so the entropy
of a sample is a sum of d binary ones, and the mean distribution over 2^d codes is one product of two 2^(d/2) tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmtok.exporting import exporting
from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer
from mmtok.reduce import mean_over_ranks

_TABLE_ENTRIES = 1 << 19
"""Entries of the two half tables that are held at a time: 2 MB, so that a chunk stays in the cache."""


@dataclass(frozen=True)
class LFQConfig(QuantizerConfig):
    bits: int = 10
    """Signs a code has; the codebook size is 2 ** bits."""
    entropy_weight: float = 0.01
    """Weight of both entropies: low for each sample, high for the mean over the batch. 0 leaves them out. Beside an
    error of about 0.02 (24 dB) the 0.1 of other implementations drowns the picture."""
    diversity: float = 1.0
    """Factor of the entropy of the mean beside that of the samples (gamma of the paper)."""
    temperature: float = 1.0
    """Softness of the assignment in the entropies: bit i is set with probability sigmoid(4 z_i / temperature)."""
    commitment_weight: float = 0.0
    """Weight of the squared distance of the latents from their code. The entropy of the samples does the same work."""

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 24:
            raise ValueError(f"lfq.bits must be 1 to 24, got {self.bits}. Use product with inner lfq for more.")
        if self.temperature <= 0:
            raise ValueError(f"lfq.temperature must be above 0, got {self.temperature}")


@register_quantizer("lfq", LFQConfig)
class LFQ(Quantizer):
    """The corners of a hypercube of `bits` dimensions; one level of ids, the first bit most significant."""

    strides: Tensor

    def __init__(self, config: LFQConfig) -> None:
        super().__init__()
        self.config: LFQConfig = config
        self.codebook_sizes = (2**config.bits,)
        self.project_in = nn.Linear(config.dim, config.bits)
        self.project_out = nn.Linear(config.bits, config.dim)
        # Persistent, though derivable: loaders that build on the meta device restore only what is saved.
        self.register_buffer("strides", 2 ** torch.arange(config.bits - 1, -1, -1))

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        latents = self._latents(z)
        bits = latents.detach() > 0  # zero is a cleared bit, always
        corners = bits * 2.0 - 1.0
        ids = (bits * self.strides).sum(-1)
        straight = corners + (latents - latents.detach())  # adds an exact zero: the values are those of `decode`
        losses = self._losses(latents, corners, context)
        return Quantized(self.project_out(straight), ids[:, None], losses, self._stats(ids, bits, context.mask))

    def relax(self, z: Tensor) -> Tensor:
        return self.project_out(self._latents(z.float()))

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return self.project_out(self._corners(ids[:, 0].clamp(min=0)))

    def code_table(self) -> Tensor:
        return self._corners(torch.arange(self.codebook_sizes[0], device=self.strides.device))

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        return 4 * self._latents(z.float()).abs().amin(-1)  # (x + 1)^2 - (x - 1)^2

    def _corners(self, ids: Tensor) -> Tensor:
        """Ids (...) -> corners (..., bits)."""
        return (ids[..., None] // self.strides % 2) * 2.0 - 1.0

    def _latents(self, z: Tensor) -> Tensor:
        # Unit mean square puts a latent on the sphere through the corners. Without it the encoder's scale drifts, the
        # entropies saturate and their gradient dies (image.md trap 12).
        return F.rms_norm(self.project_in(z), (self.config.bits,), eps=1e-6)

    def _losses(self, latents: Tensor, corners: Tensor, context: Context) -> dict[str, Tensor]:
        """The terms that have a weight."""
        config, losses = self.config, {}
        # A program that is exported gives ids alone, and could not hold the loop over chunks.
        if config.entropy_weight and not exporting():
            logits = latents * (4 / config.temperature)
            mean = self._mean_distribution(logits.flatten(0, 1), context)
            negated = torch.xlogy(mean, mean.clamp(min=1e-30)).sum()  # minus the entropy, since it is to be high
            losses["codebook_entropy"] = config.entropy_weight * config.diversity * negated
            losses["sample_entropy"] = config.entropy_weight * context.mean(_binary_entropy(logits).sum(-1))
        if config.commitment_weight:
            distance = (latents - corners).square().mean(-1)
            losses["commitment"] = config.commitment_weight * context.mean(distance)
        return losses

    def _mean_distribution(self, logits: Tensor, context: Context) -> Tensor:
        """Logits (N, d) -> probability of each of the 2^d codes, over the valid positions of all ranks."""
        weight = logits.new_ones(len(logits)) if context.mask is None else context.mask.flatten().to(logits.dtype)
        sums = _JointSum.apply(logits, weight)
        if self.training and torch.is_grad_enabled():  # one rank alone may encode, and must not wait
            # The entropy is of the mean over ranks (image.md trap 5). Its gradient is taken as if this rank's part
            # were the whole: every rank does so from the same mean, and DDP's average divides by their number.
            sums = mean_over_ranks(sums.detach()) + (sums - sums.detach())
        return sums / (max(len(logits), 1) if context.valid is None else context.valid)

    def _stats(self, ids: Tensor, bits: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """How often each code, and each pair of bits, was set."""
        valid = torch.ones_like(ids) if mask is None else mask.long()
        counts = valid.new_zeros(self.codebook_sizes[0]).index_add_(0, ids.flatten(), valid.flatten())
        ones = (bits * valid[..., None]).flatten(0, 1).float()
        return {"counts": counts, "bit_products": ones.T @ ones}


def _binary_entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of bits with these logits, exact where the probability itself would round to 1."""
    size = logits.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def _half_tables(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, d) -> probabilities of the first d // 2 bits together (N, 2^(d // 2)), and of the others."""
    pairs = torch.stack([torch.sigmoid(-logits), torch.sigmoid(logits)], -1)
    half = logits.shape[1] // 2
    tables = []
    for part in (pairs[:, :half], pairs[:, half:]):
        table = logits.new_ones(len(logits), 1)
        for bit in reversed(part.unbind(1)):  # the first bit last: the long axis stays innermost, which is fast
            table = (bit[:, :, None] * table[:, None]).flatten(1)
        tables.append(table)
    return tables[0], tables[1]


def _bit_table(bits: int, like: Tensor) -> Tensor:
    """(2^bits, bits) of 0 and 1: row c holds the bits of c, the first most significant."""
    shifts = torch.arange(bits - 1, -1, -1, device=like.device)
    return (torch.arange(2**bits, device=like.device)[:, None] >> shifts & 1).to(like.dtype)


class _JointSum(torch.autograd.Function):
    """Logits (N, d), weights (N,) -> sum over N of the weighted distribution of the codes, as (2^(d//2), 2^(d-d//2)).

    The half tables are made chunk by chunk, and again in backward, so that neither (N, 2^d) nor (N, 2^(d/2)) is kept.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(logits, weight)
        half = logits.shape[1] // 2
        total = logits.new_zeros(2**half, 2 ** (logits.shape[1] - half))
        for x, w in _chunks(logits, weight):
            first, second = _half_tables(x)
            total.addmm_((first * w[:, None]).T, second)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, weight = ctx.saved_tensors
        half = logits.shape[1] // 2
        bits = _bit_table(half, grad), _bit_table(logits.shape[1] - half, grad)
        parts = []
        for x, w in _chunks(logits, weight):
            first, second = _half_tables(x)
            first *= w[:, None]
            # The derivative of a table's entry by the logit of its bit i is entry * (bit i - p_i).
            by_first, by_second = (second @ grad.T) * first, (first @ grad) * second
            total = by_first.sum(1, keepdim=True)
            parts.append(torch.cat([by_first @ bits[0], by_second @ bits[1]], 1) - torch.sigmoid(x) * total)
        return torch.cat(parts), None


def _chunks(logits: Tensor, weight: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    half = logits.shape[1] // 2
    rows = max(512, _TABLE_ENTRIES // (2**half + 2 ** (logits.shape[1] - half)))
    return zip(logits.split(rows), weight.split(rows), strict=True)
