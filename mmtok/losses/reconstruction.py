"""Distances between a signal and its reconstruction: means over the elements that are not padding, in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmtok.losses.base import Loss, LossConfig, register_loss


@dataclass(frozen=True, kw_only=True)
class L1Config(LossConfig):
    pass


@register_loss("l1", L1Config)
class L1(Loss):
    """Mean absolute error."""

    def __init__(self, config: L1Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.mean((reconstruction.float() - x.float()).abs(), mask)


@dataclass(frozen=True, kw_only=True)
class L2Config(LossConfig):
    reduce: Literal["mean", "sum"] = "mean"
    """Over the elements of an item; items are averaged. A sum is what vectors of hundreds of channels want beside a
    commitment, which is a mean over the latent's few (downstream.md 4)."""


@register_loss("l2", L2Config)
class L2(Loss):
    """Mean squared error, or the squared distance of whole items."""

    config: L2Config

    def __init__(self, config: L2Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        mean = self.mean((reconstruction.float() - x.float()).square(), mask)
        return mean * x.shape[1:].numel() if self.config.reduce == "sum" else mean


@dataclass(frozen=True, kw_only=True)
class HuberConfig(LossConfig):
    delta: float = 0.1
    """Error at which the squared cost becomes a linear one; pictures and waveforms span 2."""

    def __post_init__(self) -> None:
        if self.delta <= 0:
            raise ValueError(f"delta must be above 0, got {self.delta}.")


@register_loss("huber", HuberConfig)
class Huber(Loss):
    """Squared for small errors and absolute for large ones, scaled to be the absolute error far out."""

    config: HuberConfig

    def __init__(self, config: HuberConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        error, delta = (reconstruction.float() - x.float()).abs(), self.config.delta
        return self.mean(torch.where(error < delta, error.square() / (2 * delta), error - delta / 2), mask)
