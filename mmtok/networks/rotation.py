"""Vectors turned, and turned back: what stands for an encoder where nothing is trained.

Ge et al. 2013, "Optimized Product Quantization": channels are dealt out to groups by a rotation that is fitted with
their codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtok.networks.base import EncoderConfig, Networks, register_network


@dataclass(frozen=True)
class RotationConfig(EncoderConfig):
    """Of vectors, whose width does not change."""

    def require_dims(self) -> None:
        super().require_dims()
        if self.in_channels != self.dim:
            raise ValueError(f"a rotation keeps the width of {self.in_channels}, and dim is {self.dim}.")


class Turn(nn.Module):
    """x (B, F) times a matrix (F, F)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # A parameter, though no gradient moves it: it tells the device and type of a model that has no other.
        self.matrix = nn.Parameter(torch.eye(width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


@register_network("rotation", RotationConfig)
class Rotation(Networks):
    """(B, F) -> (B, F) -> (B, F); nothing changes until `turn`."""

    downsample = 1
    encoder: Turn
    decoder: Turn

    def __init__(self, config: RotationConfig) -> None:
        super().__init__()
        config.require_dims()
        self.encoder, self.decoder = Turn(config.dim), Turn(config.dim)

    def turn(self, matrix: Tensor) -> None:
        """Take an orthogonal matrix (F, F)."""
        self.encoder.matrix.data.copy_(matrix)
        self.decoder.matrix.data.copy_(matrix.T)  # apart, so that either half can be exported alone
