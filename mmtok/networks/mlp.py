"""Vectors to latents by a few dense layers, and back by the same in reverse.

The body of TIGER's RQ-VAE (Rajput et al. 2023, arXiv 2305.05065): 512-256-128 with ReLU, down to 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from mmtok.networks.base import EncoderConfig, Networks, register_network


@dataclass(frozen=True)
class MLPConfig(EncoderConfig):
    """Dense layers. `in_channels` is the width of the vectors."""

    widths: tuple[int, ...] = (512, 256, 128)
    """Of the hidden layers of the encoder; the decoder has them in reverse. None of them: one linear map each way."""
    dropout: float = 0.0
    """Share of hidden values that training leaves out."""

    def __post_init__(self) -> None:
        if min(self.widths, default=1) < 1:
            raise ValueError(f"widths={list(self.widths)} must each be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} is a share, in [0, 1).")


@register_network("mlp", MLPConfig)
class MLP(Networks):
    """(B, F) -> (B, dim) -> (B, F)."""

    downsample = 1

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        config.require_dims()
        widths = (config.in_channels, *config.widths, config.dim)
        self.encoder = _layers(widths, config.dropout)
        self.decoder = _layers(widths[::-1], config.dropout)

    @property
    def last_layer(self) -> Tensor:
        last = self.decoder[-1]  # type: ignore[index]
        assert isinstance(last, nn.Linear)
        return last.weight


def _layers(widths: Sequence[int], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        if number:
            layers += [nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        layers.append(nn.Linear(before, after))
    return nn.Sequential(*layers)
