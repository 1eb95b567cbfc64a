"""Distillation of meaning: the first level of codes learns to tell what a teacher heard.

The teacher's features come with the batches, computed when shards were built: MFCC, WavLM, any array. The distance per
channel is that of SpeechTokenizer (Zhang et al. 2023, arXiv 2308.16692, eq. 2), the one per frame that of Mimi
(Defossez et al. 2024, arXiv 2410.00037, 3.3.3).
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
    features: int
    """Features of each frame of the teacher: 768 of WavLM base, the coefficients of MFCC."""
    rate: float = 50.0
    """Frames of the teacher a second, as `data.teacher_rate`."""
    distance: Literal["frame", "channel"] = "frame"
    """frame: 1 less the cosine of each frame's features (Mimi); channel: -log(sigmoid(cosine)) of each feature's course
    over an item (SpeechTokenizer)."""
    span: float = 1.0
    """Latents' frames that the teacher is averaged over, to both sides of each: what comes after counts as much as what
    came before, which a causal encoder needs most (Mimi: 2)."""
    dim: int = 0
    """Filled in from the tokenizer, like the next two; 0 until then."""
    sample_rate: int = 0
    """Filled in."""
    downsample: int = 0
    """Filled in: samples of a latent."""

    def __post_init__(self) -> None:
        if self.features < 1 or self.rate <= 0 or self.span < 1:
            raise ValueError(
                f"features and span must be at least 1 and rate above 0, got {self.features}, {self.span:g} and "
                f"{self.rate:g}."
            )

    def filled(self, spec: CodeSpec, dim: int, has_first: bool = True) -> Self:
        if spec.sample_rate is None:
            raise ConfigError(f"The loss 'distill' is of audio, and the tokenizer is of modality '{spec.modality}'.")
        if len(spec.codebook_sizes) < 2:
            raise ConfigError(f"{_NO_LEVEL} This one has {len(spec.codebook_sizes)}.")
        if not has_first:
            raise ConfigError(f"{_NO_LEVEL} The {len(spec.codebook_sizes)} levels of this one are equals.")
        return replace(self, dim=dim, sample_rate=spec.sample_rate, downsample=spec.downsample)


_NO_LEVEL = "The loss 'distill' teaches the first of several levels: use quantizer.name=split, rq or residual."


@register_loss("distill", DistillConfig)
class Distill(Loss):
    """A linear head from the values of the first level to the teacher's features, and how far it is from them.

    The head learns with the generator, and no export carries it.
    """

    config: DistillConfig

    def __init__(self, config: DistillConfig) -> None:
        super().__init__()
        if min(config.dim, config.sample_rate, config.downsample) < 1:
            raise ValueError("The loss 'distill' needs the tokenizer's dim, sample_rate and downsample.")
        self.config = config
        self.head = nn.Linear(config.dim, config.features)

    def measure(self, outcome: Outcome) -> Tensor:
        """The term of one pass.

        Raises:
            ConfigError: there is no first level, or no teacher, or another one than the settings say.
        """
        assert outcome.first is not None, "`filled` has refused codes without a first level"
        teacher = self._teacher(outcome)
        student = self.head(outcome.first.float()).mT
        mask = None if outcome.positions is None else outcome.positions[:, None]
        if self.config.distance == "frame":
            return self.mean(1 - F.cosine_similarity(student, teacher, dim=1)[:, None], mask)
        if mask is not None:
            student, teacher = student.where(mask, 0.0), teacher.where(mask, 0.0)
        costs = -F.logsigmoid(F.cosine_similarity(student, teacher, dim=2))
        return costs.sum() / max(1, costs.numel())  # a rank's share of a validation set may be none

    def _teacher(self, outcome: Outcome) -> Tensor:
        """Its features (B, F, T) of each latent, by their overlap in time."""
        assert outcome.first is not None
        found, samples = outcome.batch.get("teacher"), outcome.x.shape[-1]
        if found is None:
            raise ConfigError("The loss 'distill' found no teacher in the batches. Set data.teacher, mfcc say.")
        frames = ceil(samples / (self.config.sample_rate / self.config.rate))
        if found.shape[1:] != (self.config.features, frames):
            raise ConfigError(
                f"The teacher's features are {tuple(found.shape[1:])} of {samples} samples, and should be "
                f"{(self.config.features, frames)} by loss.NAME.features and loss.NAME.rate. Set them as the data are."
            )
        return found.float() @ self._overlaps(frames, outcome.first)

    def _overlaps(self, frames: int, latents: Tensor) -> Tensor:
        """(T_teacher, T): the share of each of the teacher's frames in the average of each latent; columns sum to 1."""
        hop, width = self.config.downsample, self.config.sample_rate / self.config.rate
        middles = hop * (torch.arange(latents.shape[1], device=latents.device) + 0.5)
        starts = width * torch.arange(frames, device=latents.device)[:, None]
        reach = hop * self.config.span / 2
        overlaps = (starts + width).minimum(middles + reach) - starts.maximum(middles - reach)
        overlaps = overlaps.clamp(min=0)
        return overlaps / overlaps.sum(0)
