"""Terms of the reconstruction objective: what a signal costs beside its reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from mmtok.codes import CodeSpec
from mmtok.reduce import per_rank
from mmtok.registry import Registry


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Fields every term has."""

    weight: float = 1.0
    """Factor of this term in the objective."""
    balance: bool = False
    """Scale the term in each update so that its gradient at the codes' values is `weight` times as long as that of all
    terms that are not scaled. For terms of another nature, whose size says nothing (UniTok's, QLIP's question)."""
    takes: ClassVar[Literal["signals", "logits", "codes"]] = "signals"
    """What a tokenizer must give (`Tokenizer.gives`) for the term to measure it; all give codes."""
    least_items: ClassVar[int] = 1
    """Items that must be computed together; 2 of a term that tells them apart."""

    def filled(self, spec: CodeSpec, dim: int, has_first: bool = True) -> Self:
        """The config with what the term needs to know of the tokenizer.

        Args:
            spec: of its codes.
            dim: channels of its latents.
            has_first: whether its codes have a first level (`Quantizer.has_first`).
        """
        return self


@dataclass(frozen=True)
class Outcome:
    """What a pass of the tokenizer gives the terms, in float32."""

    reconstruction: Tensor
    """(B, C, ...); of texts the logits (B, 256, S) of their bytes."""
    x: Tensor
    """The signals (B, C, ...) in [-1, 1]; of texts their bytes (B, 1, S), 0 to 255."""
    mask: Tensor | None = None
    """(B, 1, ...) bool, True where the signal is real and not padding; None where all is."""
    first: Tensor | None = None
    """(B, T, D) what the first level alone decodes to, with its gradient; None where there are no levels."""
    positions: Tensor | None = None
    """(B, T) bool, True where there is a latent; None where all are."""
    batch: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else came with the signals."""
    values: Tensor | None = None
    """(B, T, D) what all levels decode to, with its gradient."""
    grid: tuple[int, int] | None = None
    """(H, W) that the latents of pictures lie on."""


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

    def mean(self, values: Tensor, mask: Tensor | None) -> Tensor:
        """Mean of (B, C, ...) over the elements of all ranks where mask (B, 1, ...) is True; 0 where it is nowhere."""
        return masked_mean(values, mask, None if mask is None else self.counts([mask])[0])

    def counts(self, masks: Sequence[Tensor]) -> Tensor:
        """True elements of each mask, (masks,) float32: what `masked_mean` divides by.

        In training they are the mean over ranks, by one collective: DDP averages gradients, and ranks hold unequal
        numbers of them where items are padded.
        """
        own = torch.stack([mask.sum() for mask in masks]).float()
        return per_rank(own, together=self.training and torch.is_grad_enabled())


def masked_mean(values: Tensor, mask: Tensor | None, count: Tensor | None) -> Tensor:
    """Sum of (B, C, ...) where mask (B, 1, ...) is True, over C times `count`; without a mask the mean of all."""
    if mask is None or count is None:
        return values.mean()
    # `where`, not a product: what stands in padding may be NaN.
    return values.where(mask, 0.0).sum() / (count * values.shape[1])


losses: Registry[LossConfig, Loss] = Registry("loss", LossConfig)
register_loss = losses.register
