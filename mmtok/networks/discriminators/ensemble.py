"""Several discriminators as one: what SoundStream (`msd` and `stft`) and DAC (`mpd` and `multiband`) train against.

Each part of each counts alike. `{name: ensemble, inner: [{name: mpd, normalise: true}, {name: multiband}]}` is DAC's,
whose loss is the sum over its eight parts where ours is the mean.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn

from mmtok.networks.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    Verdict,
    discriminators,
    register_discriminator,
)


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(DiscriminatorConfig):
    inner: tuple[DiscriminatorConfig, ...]
    """The discriminators: blocks with a name each. Their `in_channels` is filled in."""

    def __post_init__(self) -> None:
        if not self.inner:
            raise ValueError("inner is empty. Example: [{name: mpd}, {name: multiband}].")
        parsed = tuple(discriminators.parse(block, f"inner[{i}]") for i, block in enumerate(self.inner))
        object.__setattr__(self, "inner", parsed)

    def filled(self, in_channels: int) -> Self:
        own = super().filled(in_channels)
        return replace(own, inner=tuple(config.filled(in_channels) for config in self.inner))


@register_discriminator("ensemble", EnsembleConfig)
class Ensemble(Discriminator):
    """The parts of all inner discriminators, in their order."""

    def __init__(self, config: EnsembleConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.ModuleList(discriminators.build(inner) for inner in config.inner)

    def forward(self, x: Tensor) -> Verdict:
        verdicts = [network(x) for network in self.inner]
        logits = tuple(part for verdict in verdicts for part in verdict.logits)
        return Verdict(logits, tuple(part for verdict in verdicts for part in verdict.features))
