"""Distillation of meaning: codes learn to tell what a teacher heard or saw.

The teacher's features come with the batches, computed when shards were built: MFCC, WavLM, a classifier's, any array.
The distance per channel is that of SpeechTokenizer (Zhang et al. 2023, arXiv 2308.16692, eq. 2), the one per frame
that of Mimi (Defossez et al. 2024, arXiv 2410.00037, 3.3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.codes import CodeSpec
from mmtok.losses.base import Loss, LossConfig, Outcome, register_loss
from mmtok.schema import ConfigError


@dataclass(frozen=True, kw_only=True)
class DistillConfig(LossConfig):
    takes = "codes"
    features: int
    """Features of each of the teacher's vectors: 768 of WavLM base, 1280 of EfficientNet-Lite0, 384 of MiniLM."""
    levels: Literal["first", "all"] = "first"
    """Whose values learn: the first of several levels (SpeechTokenizer, Mimi), or all of them together (UniTok)."""
    pool: bool = False
    """Compare the mean over an item's positions with one vector of the teacher; else each position with what the
    teacher says of its place."""
    rate: float = 50.0
    """Frames of the teacher a second, as `data.teacher_rate`; of sounds."""
    distance: Literal["frame", "channel", "l2"] = "frame"
    """frame: 1 less the cosine of each frame's features (Mimi); channel: -log(sigmoid(cosine)) of each feature's course
    over an item (SpeechTokenizer); l2: the mean squared difference."""
    span: float = 1.0
    """Latents' frames that the teacher is averaged over, to both sides of each: what comes after counts as much as what
    came before, which a causal encoder needs most (Mimi: 2). Of sounds."""
    dim: int = 0
    """Filled in from the tokenizer, like the next two; 0 until then."""
    sample_rate: int = 0
    """Filled in; 0 where signals are no sounds."""
    downsample: int = 0
    """Filled in: samples of a latent."""

    def __post_init__(self) -> None:
        if self.features < 1 or self.rate <= 0 or self.span < 1:
            raise ValueError(
                f"features and span must be at least 1 and rate above 0, got {self.features}, {self.span:g} and "
                f"{self.rate:g}."
            )
        if self.pool and self.distance == "channel":
            raise ValueError("distance=channel compares courses over an item, and pool=true leaves none. Use frame.")

    def filled(self, spec: CodeSpec, dim: int, has_first: bool = True) -> Self:
        if spec.modality not in ("audio", "image") and not self.pool:
            raise ConfigError(
                f"A teacher of '{spec.modality}' tells of whole items and of no place in them. Use loss.NAME.pool=true."
            )
        if self.levels == "first" and len(spec.codebook_sizes) < 2:
            raise ConfigError(f"{_NO_LEVEL} This one has {len(spec.codebook_sizes)}.")
        if self.levels == "first" and not has_first:
            raise ConfigError(f"{_NO_LEVEL} The {len(spec.codebook_sizes)} levels of this one are equals.")
        if spec.positions is not None and not self.pool:
            raise ConfigError("Tokens in a row have no place in the picture. Use loss.NAME.pool=true.")
        return replace(self, dim=dim, sample_rate=spec.sample_rate or 0, downsample=spec.downsample)


_NO_LEVEL = (
    "The loss 'distill' teaches the first of several levels: use quantizer.name=split, rq or residual, or levels=all."
)


@register_loss("distill", DistillConfig)
class Distill(Loss):
    """A linear head from the codes' values to the teacher's features, and how far it is from them.

    The head learns with the generator, and no export carries it.
    """

    config: DistillConfig

    def __init__(self, config: DistillConfig) -> None:
        super().__init__()
        if min(config.dim, config.downsample) < 1:
            raise ValueError("The loss 'distill' needs the tokenizer's dim and downsample.")
        self.config = config
        self.head = nn.Linear(config.dim, config.features)

    def measure(self, outcome: Outcome) -> Tensor:
        """The term of one pass.

        Raises:
            ConfigError: there is no teacher, or another one than the settings say.
        """
        if self.config.pool:
            return self._pooled(outcome)
        teacher = self._teacher(outcome)
        student = self.head(self._values(outcome).float()).mT
        mask = None if outcome.positions is None else outcome.positions[:, None]
        if self.config.distance == "channel":
            return self._by_channel(student, teacher, mask)
        return self.mean(self._costs(student, teacher)[:, None], mask)

    def _values(self, outcome: Outcome) -> Tensor:
        values = outcome.first if self.config.levels == "first" else outcome.values
        assert values is not None, "`filled` has refused codes without a first level"
        return values

    def _costs(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of features along axis 1."""
        if self.config.distance == "l2":
            return (student - teacher).square().mean(1)
        return 1 - F.cosine_similarity(student, teacher, dim=1)

    def _by_channel(self, student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            student, teacher = student.where(mask, 0.0), teacher.where(mask, 0.0)
        costs = -F.logsigmoid(F.cosine_similarity(student, teacher, dim=2))
        return costs.sum() / max(1, costs.numel())  # a rank's share of a validation set may be none

    def _pooled(self, outcome: Outcome) -> Tensor:
        teacher = teacher_of(outcome, self.config.features)
        if teacher.ndim == 3:  # of a sound, whose frames may be padding
            teacher = mean_of(self._teacher(outcome).mT, outcome.positions)
        teacher = teacher.flatten(2).mean(2) if teacher.ndim > 2 else teacher
        costs = self._costs(self.head(mean_of(self._values(outcome), outcome.positions)), teacher)
        return costs.sum() / max(1, costs.numel())

    def _teacher(self, outcome: Outcome) -> Tensor:
        """The teacher's features (B, F, T) of each latent, by their overlap in time or their place in the picture."""
        found = teacher_of(outcome, self.config.features)
        if not self.config.sample_rate:
            if found.ndim != 4 or outcome.grid is None:
                raise ConfigError(
                    f"The teacher's features are {tuple(found.shape[1:])} of a picture, and those of its places are "
                    f"(F, rows, columns). Use loss.NAME.pool=true for one vector of it."
                )
            return F.adaptive_avg_pool2d(found, outcome.grid).flatten(2)
        samples = outcome.x.shape[-1]
        frames = ceil(samples / (self.config.sample_rate / self.config.rate))
        if found.shape[1:] != (self.config.features, frames):
            raise ConfigError(
                f"The teacher's features are {tuple(found.shape[1:])} of {samples} samples, and should be "
                f"{(self.config.features, frames)} by loss.NAME.features and loss.NAME.rate. Set them as the data are."
            )
        overlaps = self._overlaps(frames, self._values(outcome))
        if outcome.mask is not None:
            # What stands behind an item's end is no frame of the teacher's, and has no share in the last latents.
            ends = outcome.mask.sum(-1) / (self.config.sample_rate / self.config.rate)
            overlaps = overlaps * (torch.arange(frames, device=ends.device) < ends)[..., None]
        return found @ (overlaps / overlaps.sum(-2, keepdim=True).clamp(min=1e-9))

    def _overlaps(self, frames: int, latents: Tensor) -> Tensor:
        """(T_teacher, T): samples that each of the teacher's frames and the surroundings of each latent share."""
        hop, width = self.config.downsample, self.config.sample_rate / self.config.rate
        middles = hop * (torch.arange(latents.shape[1], device=latents.device) + 0.5)
        starts = width * torch.arange(frames, device=latents.device)[:, None]
        reach = hop * self.config.span / 2
        overlaps = (starts + width).minimum(middles + reach) - starts.maximum(middles - reach)
        return overlaps.clamp(min=0)


def teacher_of(outcome: Outcome, features: int) -> Tensor:
    """What came with the batch as "teacher": (B, F), (B, F, T) or (B, F, rows, columns), float32.

    Raises:
        ConfigError: nothing did, or it has other features.
    """
    found = outcome.batch.get("teacher")
    if found is None:
        raise ConfigError("A term of meaning found no teacher in the batches. Set data.teacher.")
    if found.shape[1] != features:
        raise ConfigError(
            f"The teacher's features are {tuple(found.shape[1:])}, and loss.NAME.features={features}. Set them as the "
            "data are."
        )
    return found.float()


def mean_of(values: Tensor, positions: Tensor | None) -> Tensor:
    """(B, T, D) -> (B, D), the mean over the positions that are there."""
    values = values.float()
    if positions is None:
        return values.mean(1)
    kept = values.where(positions[..., None], 0.0)
    return kept.sum(1) / positions.sum(1, keepdim=True).clamp(min=1)
