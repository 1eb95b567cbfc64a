"""Vector quantization: each latent becomes the nearest code of a learned codebook.

van den Oord et al. 2017, "Neural Discrete Representation Learning" (arXiv 1711.00937), with codes by moving average as
in its appendix; low-dimensional codes compared by direction as in ViT-VQGAN (arXiv 2110.04627) and DAC (arXiv
2306.06546). The freest codebook for its size, and the one that can collapse: `init: kmeans` and `restart` keep all of
it in use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer
from mmtok.quantizers.cluster import kmeans, select, selection_keys
from mmtok.quantizers.search import chunk_rows, nearest
from mmtok.reduce import of_first_rank

_RESTARTS = 128
"""Most codes that restart in one update."""
_REVIVED = 0.1
"""The `restart` of a codebook that is revived and had none."""
_INIT_ENTRIES = 1 << 22
"""Most numbers in the sample that k-means starts from, unless one latent a code needs more."""


@dataclass(frozen=True)
class VQConfig(QuantizerConfig):
    codebook_size: int = 1024
    """Number of codes."""
    code_dim: int = 0
    """Dimension of the codes; linear layers project in and out. 0 means `dim`, without projections."""
    l2: bool = False
    """Compare directions: latents and codes are normalised, and the commitment too, so that no norm can run away."""
    cosine: bool = False
    """Choose codes by direction alone, as `l2` does, but give them with their lengths, which are learned (DAC)."""
    ema_decay: float = 0.99
    """Memory of the moving averages: of codes (learn: ema) and of their usage."""
    learn: Literal["ema", "gradient"] = "ema"
    """How codes follow their latents: as their moving average, or by `codebook_weight` times a loss."""
    commitment_weight: float = 0.25
    """Weight of the squared distance that pulls latents to codes (beta of the paper)."""
    codebook_weight: float = 1.0
    """Weight of the squared distance that pulls codes to latents, where they learn by gradient."""
    init: Literal["random", "kmeans"] = "random"
    """First codes: normal draws, or clusters of the first update's latents."""
    restart: float = 0.0
    """A code whose average usage falls below this share of the mean code's starts again from a badly coded latent of
    the batch. 0 never restarts; 0.1 keeps a codebook in use."""

    def __post_init__(self) -> None:
        if self.codebook_size < 1:
            raise ValueError(f"codebook_size must be at least 1, got {self.codebook_size}")
        if self.code_dim < 0:
            raise ValueError(f"code_dim must be 0 (as dim) or more, got {self.code_dim}")
        if self.cosine and self.l2:
            raise ValueError("l2 compares directions already, of codes without lengths. Leave out l2 or cosine.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if not 0 <= self.restart < 1:
            raise ValueError(f"restart is a share of the mean usage, in [0, 1), got {self.restart}. Try 0.1.")

    def as_vq(self, dim: int) -> VQConfig:
        """The fields of a plain `vq` out of a preset's, for latents of `dim` channels."""
        return VQConfig(**{field.name: getattr(self, field.name) for field in fields(VQConfig)} | {"dim": dim})


@register_quantizer("vq", VQConfig)
class VQ(Quantizer):
    """One codebook; one level of ids.

    State is the codes (K, D) and their average usage (K,): the sum of the latents behind a code is the product of the
    two, so it is not kept, and cannot contradict them (image.md traps 3, 7).
    """

    learns = True
    codebook: Tensor
    usage: Tensor
    updates: Tensor
    probe: Tensor

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.config: VQConfig = config
        self.codebook_sizes = (config.codebook_size,)
        dim = config.code_dim or config.dim
        projects = dim != config.dim
        self.straight_through = not (projects or config.l2)
        self.project_in = nn.Linear(config.dim, dim) if projects else nn.Identity()
        self.project_out = nn.Linear(dim, config.dim) if projects else nn.Identity()
        codes = self._normalise(torch.randn(config.codebook_size, dim) / dim**0.5)
        if config.learn == "gradient":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
        self.register_buffer("usage", torch.zeros(config.codebook_size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("probe", torch.randn(dim) / dim**0.5)
        self.restart = config.restart
        # A copy of `updates > 0` that can be branched on without waiting for the device.
        self._started = False
        self.register_load_state_dict_post_hook(_read_started)

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        x = self._normalise(self.project_in(z))
        flat = x.detach().flatten(0, 1)
        ids = self._nearest(flat)
        codes = F.embedding(ids, self._codes()).view_as(x)
        # Both terms are taken here: after the straight-through step below they would be zero (image.md trap 1).
        distance = (x - codes.detach()).square().mean(-1)
        losses = {"commitment": self.config.commitment_weight * context.mean(distance)}
        if self.config.learn == "gradient":
            pull = (codes - x.detach()).square().mean(-1)
            losses["codebook"] = self.config.codebook_weight * context.mean(pull)
        straight = codes.detach() + (x - x.detach())  # this order adds an exact zero: values equal the decoded ones
        stats = self._stats(flat, ids, distance.detach().flatten(), context.mask)
        return Quantized(self.project_out(straight), ids.view(z.shape[0], 1, z.shape[1]), losses, stats)

    def relax(self, z: Tensor) -> Tensor:
        return self.project_out(self._normalise(self.project_in(z.float())))

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return self.project_out(F.embedding(ids[:, 0].clamp(min=0), self._codes()))

    def code_table(self) -> Tensor:
        return self._codes().detach().float()

    def _codes(self) -> Tensor:
        """The codebook as it is used. Moving averages are normalised as they move; a gradient step keeps no length."""
        return self._normalise(self.codebook) if self.config.learn == "gradient" else self.codebook

    @torch.no_grad()
    def margins(self, z: Tensor) -> Tensor:
        x, codes = self._compared(self._normalise(self.project_in(z.float())))
        best = [self._two_best(rows, codes) for rows in x.flatten(0, 1).split(chunk_rows(codes))]
        return torch.cat(best).view(z.shape[:2])

    @staticmethod
    def _two_best(x: Tensor, codes: Tensor) -> Tensor:
        if len(codes) == 1:
            return x.new_full(x.shape[:1], torch.inf)
        # Exact, and not by a matmul: the digits in which near codes differ are the ones that matter.
        distance = torch.cdist(x, codes, compute_mode="donot_use_mm_for_euclid_dist").square()
        first, second = distance.topk(2, largest=False).values.unbind(1)
        return second - first

    def _nearest(self, x: Tensor) -> Tensor:
        return nearest(*self._compared(x))

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and codes in the form in which the nearest is looked for."""
        codes = self._codes().detach()
        return (F.normalize(x, dim=-1), F.normalize(codes, dim=-1)) if self.config.cosine else (x, codes)

    @torch.no_grad()
    def _stats(self, x: Tensor, ids: Tensor, distance: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Counts always; in training also the sums of latents, and a sample of them where one is asked for."""
        size, dim = self.codebook.shape
        weight = x.new_ones(x.shape[0]) if mask is None else mask.flatten().to(x.dtype)
        stats = {"counts": x.new_zeros(size).index_add_(0, ids, weight)}
        if not self.training:
            return stats
        if self.config.learn == "ema":
            rows = x if mask is None else x * weight[:, None]
            stats["sums"] = x.new_zeros(size, dim).index_add_(0, ids, rows)
        wanted = self._sample_size()
        if wanted:
            # K-means wants latents as they come; a restart those that are coded badly, as k-means++ draws them.
            importance = distance if self._initialised() else torch.ones_like(distance)
            # A power of two: rounding in the codes, which differs with the number of ranks, must not reach the keys.
            scale = self.codebook.square().mean().clamp(min=1e-12).log2().div(2).round().exp2()
            keys = selection_keys(x, importance * weight, self.probe / scale, self.updates)
            stats["sample_keys"], stats["sample_latents"] = select(keys, x, wanted)
        return stats

    def _initialised(self) -> bool:
        return self._started or self.config.init == "random"

    def _sample_size(self) -> int:
        """Latents of a batch that go with its stats. The same on every rank, so that the stats can be packed."""
        size, dim = self.codebook.shape
        if not self._initialised():
            return max(size, min(8 * size, _INIT_ENTRIES // dim))
        return min(size, _RESTARTS) if self.restart else 0

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        if not self._initialised():
            keys, latents = select(stats["sample_keys"], stats["sample_latents"], self._sample_size())
            codes, counts = kmeans(latents[keys > -torch.inf], self.codebook, seed=0)
            # The one other collective, once in a run: a GPU adds up clusters in any order, so that ranks would part.
            codes, counts = of_first_rank(torch.cat([codes, counts[:, None]], 1)).tensor_split([codes.shape[1]], 1)
            counts = counts[:, 0]
            self.codebook.copy_(self._normalise(codes))
            # Counted as the first update's latents: the averages go on from the clusters.
            self.usage.copy_(counts * (stats["counts"].sum() / counts.sum().clamp(min=1)) * (1 - self.config.ema_decay))
        else:
            self._average(stats)
            if self.restart and "sample_keys" in stats:
                self._restart(stats)
        self.updates += 1
        self._started = True

    def revive(self) -> bool:
        self.restart = self.restart or _REVIVED
        return True

    def _average(self, stats: Mapping[str, Tensor]) -> None:
        """Moving averages of usage, and of codes as the usage-weighted mean of what they were and what they got."""
        rate, counts = 1 - self.config.ema_decay, stats["counts"]
        self.usage.mul_(self.config.ema_decay).add_(counts, alpha=rate)
        if self.config.learn == "gradient":
            return
        # Both averages start at zero, so the first latents of a code set it: the bias correction of the two cancels.
        share = rate / self.usage.clamp(min=torch.finfo(torch.float32).tiny)
        kept = 1 - share * counts  # exactly 1 for a code that was not used: it stays, and does not shrink
        codes = (self.codebook * kept[:, None]).addcmul_(stats["sums"], share[:, None])
        self.codebook.copy_(self._normalise(codes))

    def _restart(self, stats: Mapping[str, Tensor]) -> None:
        """Put the least used codes on badly coded latents, and give them usage enough to be tried."""
        keys, latents = select(stats["sample_keys"], stats["sample_latents"], min(len(self.usage), _RESTARTS))
        mean = self.usage.mean()
        used, slots = self.usage.topk(len(keys), largest=False, sorted=True)
        dead = (used < self.restart * mean) & (keys > -torch.inf)
        self.codebook[slots] = self._normalise(latents).where(dead[:, None], self.codebook[slots])
        self.usage[slots] = mean.where(dead, used)

    def _normalise(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.config.l2 else x


def _read_started(module: nn.Module, _: Any) -> None:
    assert isinstance(module, VQ)
    module._started = not module.updates.is_meta and bool(module.updates > 0)
