"""How much of texts comes back, from logits of their bytes: sums that add up over batches and ranks."""

from __future__ import annotations

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 32
"""Bytes of the pieces, edge to edge from the start of each text, that come back whole or not: half a line."""

DEFINITIONS = {
    "byte_accuracy": "share of bytes that come back, each at its place",
    "exact_pieces": f"share of pieces of {PIECE} bytes, cut from the start of each text on, of which every byte comes "
    "back; what is left at the end is a piece too",
    "exact": "share of texts of which every byte comes back; empty ones do",
    "nll_bits_per_byte": "bits a byte costs under the decoder's probabilities, given the codes",
}


class ByteMetrics:
    """Sums over texts.

    Args:
        device: where they are.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.sums = torch.zeros(7, dtype=torch.float64, device=device)

    def update(self, x: Tensor, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Bytes x (B, 1, S) beside logits (B, 256, S), `lengths` (B,) bytes of each; gives right bytes (B, S)."""
        x = x[:, 0].long()
        inside = inside_of(x, lengths)
        right = (logits.argmax(1) == x) & inside
        wrong = inside & ~right
        pieces = F.pad(inside, (0, -x.shape[1] % PIECE)).unflatten(1, (-1, PIECE)).any(2)
        broken = F.pad(wrong, (0, -x.shape[1] % PIECE)).unflatten(1, (-1, PIECE)).any(2)
        nats = F.cross_entropy(logits.float(), x, reduction="none").where(inside, 0.0)
        found = (
            inside.sum(), right.sum(), pieces.sum(), (pieces & ~broken).sum(), torch.tensor(len(x)),
            (~wrong.any(1)).sum(), nats.double().sum(),
        )  # fmt: skip
        self.sums += torch.stack([one.to(self.sums) for one in found])
        return right

    @property
    def bytes(self) -> float:
        """Of all texts."""
        return float(self.sums[0])

    def result(self) -> dict[str, float]:
        """The measures by name; NaN where nothing was measured."""
        count, right, pieces, whole, texts, exact, nats = self.sums.tolist()
        return {
            "byte_accuracy": _ratio(right, count),
            "exact_pieces": _ratio(whole, pieces),
            "exact": _ratio(exact, texts),
            "nll_bits_per_byte": _ratio(nats / log(2), count),
        }


def inside_of(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, S) True where texts (B, S) of `lengths` (B,) are no padding."""
    if lengths is None:
        return torch.ones_like(x, dtype=torch.bool)
    return torch.arange(x.shape[-1], device=x.device) < lengths.to(x.device)[:, None]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
