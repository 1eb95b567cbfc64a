"""Terms of the reconstruction objective: what a signal costs beside its reconstruction."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmtok.registry import Registry


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Fields every term has."""

    weight: float = 1.0
    """Factor of this term in the objective."""


class Loss(nn.Module):
    """`loss(reconstruction, x, mask)` -> scalar float32, unweighted: the mean over valid elements.

    Both signals (B, C, ...) in [-1, 1]; mask (B, 1, ...) or None, True where the signal is real and not padding.
    """

    config: LossConfig

    @classmethod
    def lacks(cls, config: LossConfig) -> str:
        """What this machine lacks to build the term, and how to get it; empty where nothing. Reads no weights."""
        return ""

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The unweighted term."""
        raise NotImplementedError


losses: Registry[LossConfig, Loss] = Registry("loss", LossConfig)
register_loss = losses.register
