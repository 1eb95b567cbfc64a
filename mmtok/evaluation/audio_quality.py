"""What is measured between clips and what stands in for them, a tokenizer's result or a codec's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmtok.evaluation.audio_metrics import SoundMetrics, by_length
from mmtok.evaluation.speech_metrics import Judge, Judgement


class Group(NamedTuple):
    """Clips of a set that are equally long."""

    x: Tensor
    """(n, C, S), without padding, S at least 1."""
    numbers: tuple[int, ...]
    """Of each clip, counted from the start of the set."""


def groups_of(loader: Iterable[Mapping[str, Any]], device: torch.device, most: int | None = None) -> Iterator[Group]:
    """The clips of a loader's batches, up to a number of clips, without padding: what surrounds a clip is its batch.

    Args:
        loader: batches with "x" (B, C, S) in [-1, 1], and "lengths" (B,) where padded.
        device: where the clips are wanted.
        most: clips at most, the first of the loader; None takes all. Clips of no samples count and are left out.
    """
    seen = 0
    for batch in loader:
        x, lengths = batch["x"], batch.get("lengths")
        if most is not None:
            x, lengths = x[: most - seen], None if lengths is None else lengths[: most - seen]
        for items, length in by_length(x, lengths):
            if length and len(items):
                yield Group(x[items, :, :length].to(device), tuple((items + seen).tolist()))
        seen += len(x)
        if most is not None and seen >= most:
            return


class Quality:
    """Sums over clips and their stand-ins.

    Args:
        rate: samples a second.
        device: where the clips are.
        judges: of single clips; slow, so that only some clips are judged.
        every: one clip in so many is judged; 0 judges none.
    """

    def __init__(self, rate: int, device: torch.device, judges: Sequence[Judge] = (), every: int = 1) -> None:
        self.rate, self.every = rate, every
        self.sounds = SoundMetrics(rate, device)
        self.judgement = Judgement(judges)

    def update(self, group: Group, estimate: Tensor) -> None:
        """Clips, and what stands in for them (n, C, S)."""
        self.sounds.update(group.x, estimate)
        for x, y in zip(self.judged(group), self.judged(group._replace(x=estimate)), strict=True):
            self.judgement.update(x, y, self.rate)

    def judged(self, group: Group) -> list[Tensor]:
        """The clips that judges are given, (C, S) each."""
        return [x for number, x in zip(group.numbers, group.x, strict=True) if self.every and number % self.every == 0]

    def metrics(self) -> dict[str, float]:
        """Every measure by name."""
        return self.sounds.result() | self.judgement.result()
