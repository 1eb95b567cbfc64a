"""A codebook that moves with the latents: moving averages, k-means initialisation and restarts of unused codes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmtok.quantizers.base import Context
from mmtok.quantizers.cluster import cluster, kmeans, select, selection_keys
from mmtok.quantizers.entropy import weights
from mmtok.quantizers.estimators import Gradient
from mmtok.quantizers.lookup import Lookup, LookupConfig
from mmtok.reduce import of_first_rank

_RESTARTS = 128
"""Most codes that restart in one update."""
_REVIVED = 0.1
"""The `restart` of a codebook that is revived and had none."""
_INIT_ENTRIES = 1 << 22
"""Most numbers in the sample that k-means starts from, unless one latent a code needs more."""


@dataclass(frozen=True)
class CodebookConfig(LookupConfig):
    """Fields of a codebook that learns."""

    ema_decay: float = 0.99
    """Memory of the moving averages: of codes (learn: ema) and of their usage."""
    learn: Literal["ema", "gradient"] = "ema"
    """How codes follow their latents: as their moving average, or by `codebook_weight` times a loss."""
    gradient: Gradient = "straight"
    """What gradient latents get: their code's as it is, or turned as the latent would turn onto its code (the rotation
    trick, arXiv 2410.06424)."""
    init: Literal["random", "kmeans"] = "random"
    """First codes: normal draws, or clusters of the first update's latents."""
    restart: float = 0.0
    """A code whose average usage falls below this share of the mean code's starts again from a badly coded latent of
    the batch. 0 never restarts; 0.1 keeps a codebook in use."""

    restart_policy: Literal["replace", "blend"] = "replace"
    """How: moved whole, and counted as an average code from then on; or, as online clustering does (CVQ, arXiv
    2307.15139), moved by exp(-usage / (`restart` * mean usage)) towards any latent of the batch, at every update until
    it is used. CVQ's own share is `restart: 0.001`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), got {self.ema_decay}")
        if not 0 <= self.restart < 1:
            raise ValueError(f"restart is a share of the mean usage, in [0, 1), got {self.restart}. Try 0.1.")
        if self.restart_policy == "blend" and not self.restart:
            said = "restart_policy=blend moves nothing while restart is 0, but where a collapse revives codes."
            warnings.warn(f"{said} Set restart=0.001.", stacklevel=2)


class Codebook(Lookup):
    """A table of codes that learns.

    State is the codes (K, D) and their average usage (K,): the sum of the latents behind a code is the product of the
    two, so it is not kept, and cannot contradict them (image.md traps 3, 7).
    """

    learns = True
    codebook: Tensor
    usage: Tensor
    updates: Tensor
    probe: Tensor

    def __init__(self, config: CodebookConfig) -> None:
        super().__init__(config, config.gradient)
        self.learning = config
        self.pulled = config.learn == "gradient"
        codes = self._normalise(torch.randn(config.codebook_size, self.code_dim) / self.code_dim**0.5)
        if config.learn == "gradient":
            self.codebook = nn.Parameter(codes)
        else:
            self.register_buffer("codebook", codes)
        self.register_buffer("usage", torch.zeros(config.codebook_size))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("probe", torch.randn(self.code_dim) / self.code_dim**0.5)
        self.restart = config.restart
        # A copy of `updates > 0` that can be branched on without waiting for the device.
        self._started = False
        self.register_load_state_dict_post_hook(_read_started)

    def _codes(self) -> Tensor:
        # Moving averages are normalised as they move; a gradient step keeps no length.
        return self._normalise(self.codebook) if self.learning.learn == "gradient" else self.codebook

    @torch.no_grad()
    def _stats(self, x: Tensor, ids: Tensor, distance: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
        """Counts always; in training also the sums of latents, and a sample of them where one is asked for."""
        stats = super()._stats(x, ids, distance, mask)
        if not self.training:
            return stats
        weight = weights(x, Context(mask))
        if self.learning.learn == "ema":
            rows = x if mask is None else x * weight[:, None]
            stats["sums"] = torch.zeros_like(self.codebook).index_add_(0, ids, rows)
        wanted = self._sample_size()
        if wanted:
            # K-means and online clustering want latents as they come; a restart those that are coded badly, as
            # k-means++ draws them.
            badly = self._initialised() and self.learning.restart_policy == "replace"
            importance = distance if badly else torch.ones_like(distance)
            # A power of two: rounding in the codes, which differs with the number of ranks, must not reach the keys.
            scale = self.codebook.square().mean().clamp(min=1e-12).log2().div(2).round().exp2()
            keys = selection_keys(x, importance * weight, self.probe / scale, self.updates)
            stats["sample_keys"], stats["sample_latents"] = select(keys, x, wanted)
        return stats

    def _initialised(self) -> bool:
        return self._started or self.learning.init == "random"

    def _sample_size(self) -> int:
        """Latents of a batch that go with its stats. The same on every rank, so that the stats can be packed."""
        size, dim = self.codebook.shape
        if not self._initialised():
            return max(size, min(8 * size, _INIT_ENTRIES // dim))
        return min(size, _RESTARTS) if self.restart else 0

    @torch.no_grad()
    def fit(self, z: Tensor, seed: int = 0) -> None:
        if self.code_dim != z.shape[1]:
            raise ValueError(f"code_dim={self.code_dim} needs a projection, which is trained. Leave it out to fit.")
        codes, counts = cluster(self._normalise(z), len(self.codebook), seed)
        self.codebook.copy_(self._normalise(codes))
        self.usage.copy_(counts * (1 - self.learning.ema_decay))
        self.updates.fill_(1)
        self._started = True

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        if not self._initialised():
            keys, latents = select(stats["sample_keys"], stats["sample_latents"], self._sample_size())
            codes, counts = kmeans(latents[keys > -torch.inf], self.codebook, seed=0)
            # The one other collective, once in a run: a GPU adds up clusters in any order, so that ranks would part.
            codes, counts = of_first_rank(torch.cat([codes, counts[:, None]], 1)).tensor_split([codes.shape[1]], 1)
            counts = counts[:, 0]
            self.codebook.copy_(self._normalise(codes))
            # Counted as the first update's latents: the averages go on from the clusters.
            share = stats["counts"].sum() / counts.sum().clamp(min=1)
            self.usage.copy_(counts * share * (1 - self.learning.ema_decay))
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
        rate, counts = 1 - self.learning.ema_decay, stats["counts"]
        self.usage.mul_(self.learning.ema_decay).add_(counts, alpha=rate)
        if self.learning.learn == "gradient":
            return
        # Both averages start at zero, so the first latents of a code set it: the bias correction of the two cancels.
        share = rate / self.usage.clamp(min=torch.finfo(torch.float32).tiny)
        kept = 1 - share * counts  # exactly 1 for a code that was not used: it stays, and does not shrink
        codes = (self.codebook * kept[:, None]).addcmul_(stats["sums"], share[:, None])
        self.codebook.copy_(self._normalise(codes))

    def _restart(self, stats: Mapping[str, Tensor]) -> None:
        """Put the least used codes on latents of the batch, or move them there."""
        keys, latents = select(stats["sample_keys"], stats["sample_latents"], min(len(self.usage), _RESTARTS))
        mean = self.usage.mean()
        used, slots = self.usage.topk(len(keys), largest=False, sorted=True)
        codes, latents, found = self.codebook[slots], self._normalise(latents), keys > -torch.inf
        if self.learning.restart_policy == "blend":
            share = torch.exp(-used / (self.restart * mean).clamp(min=torch.finfo(torch.float32).tiny))
            moved = self._normalise(torch.lerp(codes, latents, share[:, None]))
            self.codebook[slots] = moved.where(found[:, None], codes)
            return
        dead = (used < self.restart * mean) & found
        self.codebook[slots] = latents.where(dead[:, None], codes)
        self.usage[slots] = mean.where(dead, used)  # enough to be tried


def _read_started(module: nn.Module, _: Any) -> None:
    assert isinstance(module, Codebook)
    module._started = not module.updates.is_meta and bool(module.updates > 0)
