"""Terms of the reconstruction objective: what a signal costs beside its reconstruction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from mmtok.codes import CodeSpec
from mmtok.registry import Registry


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Fields every term has."""

    weight: float = 1.0
    """Factor of this term in the objective."""

    def filled(self, spec: CodeSpec, dim: int) -> Self:
        """The config with what the term needs to know of the tokenizer: its spec, and the channels of its latents."""
        return self


@dataclass(frozen=True)
class Outcome:
    """What a pass of the tokenizer gives the terms, in float32."""

    reconstruction: Tensor
    """(B, C, ...)."""
    x: Tensor
    """The signals (B, C, ...) in [-1, 1]."""
    mask: Tensor | None = None
    """(B, 1, ...) bool, True where the signal is real and not padding; None where all is."""
    first: Tensor | None = None
    """(B, T, D) what the first level alone decodes to, with its gradient; None where there are no levels."""
    positions: Tensor | None = None
    """(B, T) bool, True where there is a latent; None where all are."""
    batch: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else came with the signals."""


class Loss(nn.Module):
    """`loss(reconstruction, x, mask)` -> scalar float32, unweighted: the mean over valid elements.

    Both signals (B, C, ...) in [-1, 1]; mask (B, 1, ...) or None, True where the signal is real and not padding.
    """

    config: LossConfig

    @classmethod
    def lacks(cls, config: LossConfig) -> str:
        """What this machine lacks to build the term, and how to get it; empty where nothing. Reads no weights."""
        return ""

    def measure(self, outcome: Outcome) -> Tensor:
        """The unweighted term of one pass. A term that is no distance of signals overrides this."""
        return self(outcome.reconstruction, outcome.x, outcome.mask)

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """The unweighted term."""
        raise NotImplementedError


losses: Registry[LossConfig, Loss] = Registry("loss", LossConfig)
register_loss = losses.register
