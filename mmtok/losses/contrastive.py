"""Codes that tell their pair from all others: of a picture its caption, of a sound its transcript.

InfoNCE between the mean of an item's quantized values and the embedding of its pair, both ways, over the batches of all
ranks. Radford et al. 2021, CLIP (arXiv 2103.00020); on tokens beside reconstruction: UniTok (Ma et al. 2025, arXiv
2502.20321) and QLIP (Zhao et al. 2025, arXiv 2502.05178). The pair is embedded beforehand and lies in the shards.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.codes import CodeSpec
from mmtok.losses.base import Loss, LossConfig, Outcome, register_loss
from mmtok.losses.semantic import mean_of, teacher_of
from mmtok.reduce import gather_rows, world_size

COLDEST = 0.01
"""Temperature that learning goes down to, as CLIP bounds it."""


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(LossConfig):
    takes = "codes"
    least_items = 2
    features: int
    """Of the pair's embedding: 384 of MiniLM."""
    width: int = 128
    """Of the space both are brought to."""
    temperature: float = 0.07
    """That similarities are divided by, to begin with; it is learned."""
    dim: int = 0
    """Filled in from the tokenizer; 0 until then."""

    def __post_init__(self) -> None:
        if min(self.features, self.width) < 1 or self.temperature < COLDEST:
            raise ValueError(
                f"features and width must be at least 1 and temperature at least {COLDEST:g}, got {self.features}, "
                f"{self.width} and {self.temperature:g}."
            )

    def filled(self, spec: CodeSpec, dim: int, has_first: bool = True) -> Self:
        return replace(self, dim=dim)


@register_loss("contrastive", ContrastiveConfig)
class Contrastive(Loss):
    """Nats by which an item's codes miss its pair among those of all ranks' batches, and the pair its item.

    Two items with one caption count as strangers: batches should hold few of them.
    """

    config: ContrastiveConfig

    def __init__(self, config: ContrastiveConfig) -> None:
        super().__init__()
        if config.dim < 1:
            raise ValueError("The loss 'contrastive' needs the tokenizer's dim.")
        self.config = config
        self.of_codes = nn.Linear(config.dim, config.width, bias=False)
        self.of_pairs = nn.Linear(config.features, config.width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-log(config.temperature)))

    def measure(self, outcome: Outcome) -> Tensor:
        """The term of one pass.

        Raises:
            ConfigError: no pair came with the batch, or one of another embedding.
        """
        assert outcome.values is not None
        pairs = teacher_of(outcome, self.config.features)
        own = F.normalize(self.of_codes(mean_of(outcome.values, outcome.positions)), dim=1)
        other = F.normalize(self.of_pairs(pairs.flatten(2).mean(2) if pairs.ndim > 2 else pairs), dim=1)
        if self.training and torch.is_grad_enabled():
            # The parameter itself, as CLIP: beyond the clamp below there is no gradient, and none would lead back.
            with torch.no_grad():
                self.log_scale.clamp_(max=-log(COLDEST))
        scale, count = self.log_scale.clamp(max=-log(COLDEST)).exp(), len(own)
        if not count:
            return own.sum()
        first, all_own, all_other = 0, own, other
        # Ranks hold equal numbers of items in training, and meet there alone.
        if self.training and torch.is_grad_enabled() and world_size() > 1:
            first = count * torch.distributed.get_rank()
            all_own, all_other = gather_rows(torch.cat([own, other], 1)).split(self.config.width, 1)
        wanted = torch.arange(first, first + count, device=own.device)
        there = F.cross_entropy(scale * own @ all_other.T, wanted)
        back = F.cross_entropy(scale * other @ all_own.T, wanted)
        return (there + back) / 2
