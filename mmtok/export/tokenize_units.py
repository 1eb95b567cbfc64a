"""Samples of shards, read and decoded by worker processes: a unit at a time, never across two shards."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.shardindex import ShardError, ShardIndex
from datamodules.shards import ShardSet
from mmtok.export.tokenize_input import Block, Preparer, out_of_memory

UNIT_BYTES = 32 << 20
"""Bytes of files that are decoded together: a batch of photographs of 50 megapixels would be gigabytes."""

OURS, LEFT = 1, 2
"""What is decided of a shard: decoded here, or written by another process or finished."""


class Unit(NamedTuple):
    """Samples of a shard that were read together."""

    shard: int
    blocks: list[Block]
    kept: dict[int, tuple[str, dict[str, bytes]]]
    """Number of a good sample -> its key, and members that go along."""
    bad: list[tuple[int, str, str]]
    """Number, key and reason of what could not be used."""
    last: bool
    """Whether the shard ends here."""
    failed: str = ""
    """Why nothing of the shard can be used."""


class ShardUnits(IterableDataset):
    """The units of some shards, in order; worker w of n reads every n-th from the w-th on."""

    def __init__(
        self,
        source: ShardSet,
        shards: Sequence[int],
        prepare: Preparer,
        keep: Sequence[str],
        said: Tensor | None = None,
    ) -> None:
        """Note what to read.

        Args:
            source: the shard set.
            shards: numbers in it.
            prepare: makes signals of samples.
            keep: members that go along.
            said: (shards,) in shared memory, `OURS` or `LEFT` of each, 0 until that is decided. None reads all.
        """
        self.said = said
        self.source, self.shards, self.prepare, self.keep = source, list(shards), prepare, tuple(keep)
        self.extensions = {*prepare.content, *(name.rpartition(".")[2] for name in keep)}

    def __iter__(self) -> Iterator[Unit]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for turn, (shard, numbers, last) in enumerate(self._plan()):
            if turn % workers == worker:
                yield self._read(shard, numbers, last) if isinstance(numbers, list) else _failed(shard, numbers)

    def _plan(self) -> Iterator[tuple[int, list[int] | str, bool]]:
        """Shard, samples to read together (or why there are none), and whether they are its last."""
        for at, shard in enumerate(self.shards):
            if not self._is_ours(at):
                yield shard, "", True
                continue
            if at + 1 < len(self.shards) and self.source.is_remote(self.shards[at + 1]) and self._is_ours(at + 1):
                self.source.prefetch(self.shards[at + 1])
            try:
                index = self.source.index(shard)
                said = self.source.manifest.shards[shard].samples
                if len(index) != said:
                    raise ShardError(
                        f"it holds {len(index)} samples, its manifest says {said}. Check: mmtok shards verify"
                    )
            except (ShardError, OSError) as error:
                yield shard, str(error), True
                continue
            units = list(self._units(index))
            for number, unit in enumerate(units):
                yield shard, unit, number + 1 == len(units)

    def _is_ours(self, at: int) -> bool:
        while self.said is not None and not self.said[at]:  # the encoder decides a few shards ahead
            time.sleep(0.01)
        return self.said is None or int(self.said[at]) == OURS

    def _units(self, index: ShardIndex) -> Iterator[list[int]]:
        sizes = [self._bytes(index, number) for number in range(len(index))]
        order = range(len(index))
        by_size = sorted(order, key=lambda n: (sizes[n], n)) if self.prepare.modality == "audio" else list(order)
        unit: list[int] = []
        held = 0
        for number in by_size:
            if unit and (len(unit) == self.prepare.batch or held + sizes[number] > UNIT_BYTES):
                yield unit
                unit, held = [], 0
            unit.append(number)
            held += sizes[number]
        yield unit

    def _bytes(self, index: ShardIndex, number: int) -> int:
        """Of the signal in the tar; 0 where there is none."""
        try:
            found = index.members(number)
        except ShardError:
            return 0
        content = self.prepare.content
        return next((size for name, (_, size) in found.items() if name.rpartition(".")[2] in content), 0)

    def _read(self, shard: int, numbers: list[int], last: bool) -> Unit:
        items: list[tuple[int, Tensor]] = []
        kept: dict[int, tuple[str, dict[str, bytes]]] = {}
        bad: list[tuple[int, str, str]] = []
        for number in numbers:
            try:
                sample = self.source.read(shard, number, self.extensions)
                items.append((number, self.prepare(sample.members)))
                kept[number] = sample.key, {name: sample.members[name] for name in self.keep if name in sample.members}
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                key, passing = self.source.key(shard, number), isinstance(error, OSError) or out_of_memory(error)
                if passing:  # without the sample the shard would count as finished for ever
                    return Unit(shard, [], {}, [], last, f"{key}: {error}")
                if not isinstance(error, ValueError):
                    raise
                bad.append((number, key, str(error)))
        try:
            return Unit(shard, self.prepare.blocks(items), kept, bad, last)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return Unit(shard, [], {}, [], last, f"{kept[items[0][0]][0]} and others: {error}")


def _failed(shard: int, why: str) -> Unit:
    return Unit(shard, [], {}, [], True, why)
