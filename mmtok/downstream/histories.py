"""Sequences of items as tensors: leave-last-out, pieces to train on, batches of about equal lengths."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.interactions import SHORTEST, Interactions

POOL = 32
"""Batches whose sequences are sorted by length together, so that batches hold little padding."""


class Histories(NamedTuple):
    """A batch."""

    items: Tensor
    """(B, T) rows of the corpus, oldest first, -1 behind the last."""
    users: Tensor
    """(B,) a number below 2^31 of each user's name."""

    def of(self, rows: Tensor) -> Histories:
        """Some of them, without the columns that none of these needs."""
        items = self.items[rows]
        longest = int((items >= 0).sum(1).max()) if len(items) else 0
        return Histories(items[:, :longest], self.users[rows])

    def lengths(self) -> Tensor:
        """(B,)."""
        return (self.items >= 0).sum(1)

    def to(self, device: torch.device | str) -> Histories:
        """The same elsewhere."""
        return Histories(self.items.to(device), self.users.to(device))


class Asked(NamedTuple):
    """Histories and the item that follows each."""

    histories: Histories
    wanted: Tensor
    """(N,) rows of the corpus."""

    def first(self, count: int) -> Asked:
        """Some of them."""
        return Asked(self.histories.of(torch.arange(min(count, len(self.wanted)))), self.wanted[:count])

    def batches(self, size: int) -> Iterator[tuple[Histories, Tensor]]:
        """All of them, those of about equal lengths together."""
        for rows in self.histories.lengths().argsort(stable=True).split(size):
            yield self.histories.of(rows), self.wanted[rows]


@dataclass(frozen=True)
class Split:
    """Leave-last-out: of every user the last item is for the test and the one before for validation."""

    train: Histories
    """Pieces of at most T + 1 items; what is learned from each is every item but its first."""
    validation: Asked
    """History: everything before the last two."""
    test: Asked
    """History: everything before the last, validation's item with it."""
    occurrences: Tensor
    """(items,) times each stands in what is trained on."""
    repeats: bool
    """Whether any user has an item twice."""


def leave_last_out(data: Interactions, rows: dict[str, int], length: int) -> Split:
    """Split sequences of at least three items.

    Args:
        data: whose items all have a row.
        rows: of the corpus.
        length: items of a history at most, the latest.

    Raises:
        ValueError: a user has too few.
    """
    pieces: list[list[int]] = []
    owners: list[int] = []
    before, last, trained = [], [], list[int]()
    users = [zlib.crc32(user.encode()) & 0x7FFFFFFF for user in data.users]
    for user, sequence in zip(users, data.sequences, strict=True):
        if len(sequence) < SHORTEST:
            raise ValueError(f"a user has {len(sequence)} items, and leave-last-out needs {SHORTEST} of each.")
        own = [rows[item] for item in sequence]
        before.append(own[:-1])
        last.append(own)
        trained.extend(own[:-2])
        # Pieces overlap by one item, so that every item but the very first is learned from what came before it.
        for start in range(0, max(len(own) - 3, 0), length):
            pieces.append(own[:-2][start : start + length + 1])
            owners.append(user)
    return Split(
        Histories(padded(pieces, length + 1), torch.tensor(owners, dtype=torch.int64)),
        _asked(before, users, length),
        _asked(last, users, length),
        torch.bincount(torch.tensor(trained), minlength=len(rows)),
        any(len(set(sequence)) < len(sequence) for sequence in data.sequences),
    )


def _asked(sequences: list[list[int]], users: list[int], length: int) -> Asked:
    """What each sequence ends with, and the items before it."""
    items = padded([sequence[:-1][-length:] for sequence in sequences], length)
    wanted = torch.tensor([sequence[-1] for sequence in sequences], dtype=torch.int64)
    return Asked(Histories(items, torch.tensor(users, dtype=torch.int64)), wanted)


def padded(sequences: Sequence[Sequence[int]], length: int) -> Tensor:
    """Lists -> (N, length) int64, -1 behind each."""
    out = torch.full((len(sequences), length), -1)
    for row, sequence in enumerate(sequences):
        out[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.int64)
    return out


def batches(lengths: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless batches of row numbers (size,): permutations, sorted by length within pools, in any order of batches."""
    pool = size * POOL
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < pool:
            rest = torch.cat([rest, torch.randperm(len(lengths), generator=generator)])
        own, rest = rest[:pool], rest[pool:]
        own = own[lengths[own].argsort()].view(POOL, size)
        yield from own[torch.randperm(POOL, generator=generator)]
