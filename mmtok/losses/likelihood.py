"""How likely what went in is, by the logits that came back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from mmtok.losses.base import Loss, LossConfig, register_loss


@dataclass(frozen=True, kw_only=True)
class BytesConfig(LossConfig):
    takes: ClassVar[Literal["signals", "logits"]] = "logits"


@register_loss("bytes", BytesConfig)
class BytesLoss(Loss):
    """Cross-entropy of bytes in nats: the mean over those of all ranks that are no padding; by log(2) it is bits."""

    def __init__(self, config: BytesConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, 256, S), bytes (B, 1, S), mask (B, 1, S)."""
        # Before, too: of what is no number in padding, softmax would make a gradient that is none.
        logits = reconstruction.float() if mask is None else reconstruction.float().where(mask, 0.0)
        return self.mean(F.cross_entropy(logits, x[:, 0].long(), reduction="none")[:, None], mask)
