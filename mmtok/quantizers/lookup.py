"""What quantizers with a table of codes share: each latent becomes its nearest code, whatever the table is made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig
from mmtok.quantizers.entropy import negated_entropy, weights
from mmtok.quantizers.estimators import Gradient, estimate
from mmtok.quantizers.search import chunk_rows, nearest, nearest_few
from mmtok.quantizers.soft import entropies


@dataclass(frozen=True)
class LookupConfig(QuantizerConfig):
    """Fields of every quantizer that looks codes up."""

    codebook_size: int = 1024
    """Number of codes."""
    code_dim: int = 0
    """Dimension of the codes; linear layers project in and out. 0 means `dim`, without projections."""
    l2: bool = False
    """Compare directions: latents and codes are normalised, and the commitment too, so that no norm can run away."""
    commitment_weight: float = 0.25
    """Weight of the squared distance that pulls latents to codes (beta of the paper)."""
    codebook_weight: float = 1.0
    """Weight of the squared distance that pulls codes to latents, where they learn by gradient."""
    entropy_weight: float = 0.0
    """Weight of two entropies in training: low for each latent, high for the mean over the batches of all ranks. 0
    leaves them out, and what they cost: the softmax over all codes, twice."""
    entropy_temperature: float = 0.01
    """Softness of the assignment in the entropies: minus squared distances over it are the logits."""
    diversity: float = 1.0
    """Factor of the entropy of the mean beside that of the latents."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook_size < 1:
            raise ValueError(f"codebook_size must be at least 1, got {self.codebook_size}")
        if self.code_dim < 0:
            raise ValueError(f"code_dim must be 0 (as dim) or more, got {self.code_dim}")
        if self.entropy_temperature <= 0:
            raise ValueError(f"entropy_temperature must be above 0, got {self.entropy_temperature}")


class Lookup(Quantizer):
    """One table of codes; one level of ids. Subclasses say what the codes are, and whether a loss moves them."""

    pulled: bool = False
    """Whether codes follow latents by a loss, the term `codebook`."""

    def __init__(self, config: LookupConfig, gradient: Gradient = "straight") -> None:
        super().__init__()
        self.settings, self.gradient = config, gradient
        self.codebook_sizes = (config.codebook_size,)
        self.code_dim = config.code_dim or config.dim
        projects = self.code_dim != config.dim
        plain = not (projects or config.l2)
        self.straight_through = plain and gradient == "straight"
        self.rotates = plain and gradient == "rotate"
        self.project_in = nn.Linear(config.dim, self.code_dim) if projects else nn.Identity()
        self.project_out = nn.Linear(self.code_dim, config.dim) if projects else nn.Identity()

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        x = self._normalise(self.project_in(z))
        flat = x.detach().flatten(0, 1)
        ids = nearest(*self._compared(flat)) if context.chosen is None else context.chosen.flatten()
        codes = self._embed(ids).view_as(x)
        # Not of what is carried: after the estimator's step these would be zero (image.md trap 1).
        distance = (x - codes.detach()).square().mean(-1)
        losses = {"commitment": self.settings.commitment_weight * context.mean(distance)}
        if self.pulled:
            pull = (codes - x.detach()).square().mean(-1)
            losses["codebook"] = self.settings.codebook_weight * context.mean(pull)
        carried = self._carry(x, codes, ids)
        losses |= self._losses(x, carried, context)
        stats = self._stats(flat, ids, distance.detach().flatten(), context.mask)
        return Quantized(self.project_out(carried), ids.view(z.shape[0], 1, z.shape[1]), losses, stats)

    def relax(self, z: Tensor) -> Tensor:
        return self.project_out(self._normalise(self.project_in(z.float())))

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return self.project_out(self._embed(ids[:, 0].clamp(min=0)))

    def code_table(self) -> Tensor:
        return self._codes().detach().float()

    @torch.no_grad()
    def candidates(self, z: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Rows z (N, dim) -> ids (N, n) of their nearest codes, the best first, and the values (N, n, dim) of these."""
        x, codes, bias = self._compared(self._normalise(self.project_in(z)))
        ids = nearest_few(x, codes, count, bias)
        return ids, self.project_out(self._embed(ids))

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        x, codes, _ = self._compared(self._normalise(self.project_in(z.float())))
        best = [self._two_best(rows, codes) for rows in x.flatten(0, 1).split(chunk_rows(codes))]
        return torch.cat(best).view(z.shape[:2])

    def _carry(self, x: Tensor, codes: Tensor, ids: Tensor) -> Tensor:
        """The codes' values with a gradient path to x (B, T, D)."""
        return estimate(self.gradient, x, codes)

    def _losses(self, x: Tensor, carried: Tensor, context: Context) -> dict[str, Tensor]:
        """Terms beside commitment and codebook."""
        weight = self.settings.entropy_weight
        # In training alone: whoever only encodes would pay for a softmax over all codes.
        if not (weight and self.training):
            return {}
        flat = x.flatten(0, 1)
        keys, bias = self._scored()
        scale = x.new_full((), 1 / self.settings.entropy_temperature)
        entropy, sums = entropies(flat, keys, bias, weights(flat, context), scale)
        negated = negated_entropy(sums, len(flat), context, together=torch.is_grad_enabled())
        return {
            "codebook_entropy": weight * self.settings.diversity * negated,
            "sample_entropy": weight * context.mean(entropy.view(x.shape[:2])),
        }

    def _scored(self) -> tuple[Tensor, Tensor | None]:
        """Keys (K, D) and bias (K,) by which latents score codes: minus squared distances, but for the |x|^2 of all."""
        codes = self._codes()
        return 2 * codes, -codes.square().sum(1)

    def _codes(self) -> Tensor:
        """The codes (K, D) as they are used, with their gradient."""
        raise NotImplementedError

    def _embed(self, ids: Tensor) -> Tensor:
        """Ids (...) -> codes (..., D), with their gradient."""
        return F.embedding(ids, self._codes())

    def _two_best(self, x: Tensor, codes: Tensor) -> Tensor:
        """Rows (N, D) -> (N,) by how much less the squared distance to the best code is than to the second."""
        if len(codes) == 1:
            return x.new_full(x.shape[:1], torch.inf)
        # Exact, and not by a matmul: the digits in which near codes differ are the ones that matter.
        distance = torch.cdist(x, codes, compute_mode="donot_use_mm_for_euclid_dist").square()
        first, second = distance.topk(2, largest=False).values.unbind(1)
        return second - first

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Latents and codes in the form in which the nearest is looked for, and the bias of `nearest`."""
        with torch.no_grad():
            return x, self._codes().detach(), None

    @torch.no_grad()
    def _stats(self, x: Tensor, ids: Tensor, distance: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Rows (N, D), their codes and distances (N,) -> stats; here how often each code was taken."""
        weight = weights(x, Context(mask))
        return {"counts": x.new_zeros(self.codebook_sizes[0]).index_add_(0, ids, weight)}

    def _normalise(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.settings.l2 else x
