"""Reads samples in the order of `order.py` and hands out micro batches: what stands between shards and a data module.

Resuming is a seek to an update. Ranks are given, never read from the environment: a worker that was spawned sees
neither RANK nor the process group, and would silently read what every other rank reads.
"""

from __future__ import annotations

import os
import signal
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.base import DataConfig
from datamodules.order import BatchPlan, Place, StreamOrder, slot_seed
from datamodules.shards import Sample, ShardError, ShardSet

WINDOW = 4096
"""Samples over which the share of bad ones is taken."""
ENOUGH = 256
"""Samples seen before a share says anything: one bad sample of the first three must not stop a run."""


class SlotSample(NamedTuple):
    """What a decode function is given."""

    key: str
    members: dict[str, bytes]
    """Extension -> content."""
    seed: int
    """For augmentation: depends on the run's seed and the slot, not on ranks, workers or restarts."""
    slot: int
    """Global position in the stream; for validation, position in the set."""
    set: int = 0
    """Number of the shard set in the mixture."""


class BadSample(NamedTuple):
    """A sample that could not be used."""

    shard: str
    key: str
    reason: str


class BadDataError(ValueError):
    """Too many samples cannot be read."""


Decode = Callable[[SlotSample], Any]
"""Bytes to one item; raises ShardError (or its subclass DecodeError) for a sample that cannot be used."""
Collate = Callable[[list[Any]], dict[str, Any]]
"""Items to a batch. The stream adds "bad": list[BadSample] to it."""


@dataclass
class BadCount:
    """Counts bad samples of one worker, and stops the run when they are too many."""

    limit: float
    seen: int = 0
    last: BadSample | None = None
    _window: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _bad: int = 0

    def add(self, bad: BadSample | None) -> None:
        """Take note of one slot: what was wrong with its own sample, or None.

        Raises:
            BadDataError: more than `limit` of the latest samples were bad.
        """
        if len(self._window) == WINDOW:
            self._bad -= self._window[0]
        self._window.append(bad is not None)
        self._bad += bad is not None
        self.last = bad or self.last
        seen = len(self._window)
        # More bad ones than a full window may hold need no further wait.
        if (seen >= ENOUGH or self._bad > ENOUGH * self.limit + 16) and self._bad > self.limit * seen:
            assert self.last is not None
            raise BadDataError(
                f"{self._bad} of the last {seen} samples cannot be read ({self._bad / seen:.1%}, data.max_bad_fraction="
                f"{self.limit:.1%}). The last: {self.last.key} in {self.last.shard}: {self.last.reason}. "
                "Look at all: mmtok shards verify."
            )


class Reader:
    """Stage: places in the order -> decoded items. The next good sample of its block fills a bad one's slot."""

    def __init__(
        self,
        sets: Sequence[ShardSet],
        decode: Decode,
        *,
        seed: int,
        max_bad_fraction: float,
        extensions: Collection[str] | None = None,
    ) -> None:
        self.sets = tuple(sets)
        self.decode = decode
        self.seed = seed
        self.extensions = extensions
        self.count = BadCount(max_bad_fraction)

    def read(self, slot: int, places: Iterator[Place]) -> tuple[Any, BadSample | None]:
        """The item of a slot, and what was wrong with the slot's own sample.

        Raises:
            BadDataError: no sample of the block can be read, or too many were bad.
        """
        own: BadSample | None = None
        for tried, place in enumerate(places):
            item, bad = self.attempt(slot, place)
            if tried == 0:
                own = bad
                self.count.add(bad)
            if bad is None:
                return item, own
        assert own is not None
        raise BadDataError(
            f"no sample of a whole block of data.shuffle can be read. {own.key} in {own.shard}: {own.reason}. "
            "Look at all: mmtok shards verify."
        )

    def attempt(self, slot: int, place: Place) -> tuple[Any, BadSample | None]:
        """(item, None), or (None, what is wrong with it)."""
        source = self.sets[place.set]
        try:
            sample: Sample = source.read(place.shard, place.sample, self.extensions)
            return self.decode(SlotSample(*sample, slot_seed(self.seed, slot), slot, place.set)), None
        except (ShardError, OSError) as error:
            name = source.manifest.shards[place.shard].name
            return None, BadSample(name, source.key(place.shard, place.sample), str(error))


class BatchStream(webdataset.DataPipeline):
    """Endless micro batches of one rank, from an update on: for a DataLoader with `batch_size=None` (see `loader`).

    Worker w of n prepares the micro batches w, w + n, ... counted from `start_update`, because a DataLoader asks
    worker 0 first after every restart.
    """

    def __init__(
        self,
        sets: Sequence[ShardSet],
        config: DataConfig,
        decode: Decode,
        collate: Collate,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        start_update: int = 0,
        extensions: Collection[str] | None = None,
    ) -> None:
        """Prepare the stream; no tar is opened yet.

        Args:
            sets: the shard sets of `config.shards`, in its order (see `open_sets`).
            config: batch size, streams, shuffle and the share of bad samples that is tolerated.
            decode: bytes of one sample to an item.
            collate: items to a batch.
            seed: seed of the run.
            rank: this process among `world`.
            world: ranks of the run.
            accumulate: micro batches of an update.
            start_update: first update to read; optimiser updates done so far.
            extensions: members to read; None reads all.

        Raises:
            ValueError: the batch does not divide over ranks and accumulation, or a set is smaller than `data.streams`.
        """
        self.order = stream_order(sets, config, seed)
        self.plan = BatchPlan.check(config.batch_size, world, rank, accumulate)
        self.start_update = start_update
        self.reader = Reader(sets, decode, seed=seed, max_bad_fraction=config.max_bad_fraction, extensions=extensions)
        self.collate = collate
        super().__init__(self._slots, self._read)

    def _slots(self) -> Iterator[range]:
        """Stage: the slots of each micro batch of this worker."""
        worker, workers = _worker()
        micro_batch = self.start_update * self.plan.accumulate + worker
        while True:
            yield self.plan.slots(micro_batch)
            micro_batch += workers

    def _read(self, source: Iterator[range]) -> Iterator[dict[str, Any]]:
        """Stage: slots -> a batch."""
        for slots in source:
            items, bads = zip(*(self.reader.read(slot, self.order.places(slot)) for slot in slots), strict=True)
            yield self.collate(list(items)) | {"bad": [bad for bad in bads if bad]}


class ValStream(IterableDataset):
    """The first samples of a set in their order: equally many batches of equal size on every rank.

    Batches carry "valid", a list of bool that stays on the host: False for padding and for a sample that could not be
    read, whose place another takes. Sums over valid items, reduced over ranks, are exact for any world size.
    """

    def __init__(
        self,
        source: ShardSet,
        config: DataConfig,
        decode: Decode,
        collate: Collate,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        extensions: Collection[str] | None = None,
    ) -> None:
        BatchPlan.check(world, world, rank)
        self.samples = min(len(source), config.val_samples)
        if self.samples < 1:
            raise ValueError(f"data.val_samples={config.val_samples} leaves nothing to validate on.")
        self.rank, self.world = rank, world
        self.ends = source.counts.cumsum().tolist()
        per_rank = -(-self.samples // world)
        self.batch_size = min(config.val_batch_size, per_rank)
        self.batches = -(-per_rank // self.batch_size)
        self.reader = Reader(
            [source], decode, seed=seed, max_bad_fraction=config.max_bad_fraction, extensions=extensions
        )
        self.collate = collate

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        for batch in range(worker, self.batches, workers):
            first = batch * self.batch_size
            places = [(first + i) * self.world + self.rank for i in range(self.batch_size)]
            items, bads = zip(*(self._item(place) for place in places), strict=True)
            valid = [place < self.samples and not bad for place, bad in zip(places, bads, strict=True)]
            yield self.collate(list(items)) | {"valid": valid, "bad": [bad for bad in bads if bad]}

    def _item(self, place: int) -> tuple[Any, BadSample | None]:
        if place >= self.samples:  # padding: whatever can be read, and not counted as bad twice
            return self.reader.read(place, self._from(place % self.samples))[0], None
        return self.reader.read(place, self._from(place))

    def _from(self, place: int) -> Iterator[Place]:
        for i in range(self.samples):
            number = (place + i) % self.samples
            shard = bisect_right(self.ends, number)
            yield Place(0, shard, number - (self.ends[shard - 1] if shard else 0))


def only_valid(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A validation batch without its padding and without what stands in for unreadable samples."""
    valid = batch.get("valid")
    if valid is None or all(valid):
        return batch
    kept = torch.tensor([i for i, good in enumerate(valid) if good], device=batch["x"].device, dtype=torch.int64)
    tensors = {name: value[kept] for name, value in batch.items() if isinstance(value, Tensor)}
    lists = {name: [value[i] for i in kept.tolist()] for name, value in batch.items() if name in ("key", "valid")}
    return {**batch, **tensors, **lists}


def open_sets(config: DataConfig) -> list[ShardSet]:
    """The shard sets of `config.shards`."""
    paths = [config.shards] if isinstance(config.shards, str) else [one.path for one in config.shards]
    return [ShardSet.open(path, cache_dir=config.cache_dir, allow_pipe=config.allow_pipe) for path in paths]


def stream_order(sets: Sequence[ShardSet], config: DataConfig, seed: int) -> StreamOrder:
    """The order of training over these sets."""
    weights = None if isinstance(config.shards, str) else [one.weight for one in config.shards]
    counts = [one.counts for one in sets]
    return StreamOrder(counts, weights=weights, seed=seed, streams=config.streams, shuffle=config.shuffle)


def loader(
    stream: BatchStream | ValStream, workers: int, *, pin_memory: bool = False, context: str | None = None
) -> DataLoader:
    """A DataLoader over a stream of ready batches.

    Args:
        stream: what to read.
        workers: processes; 0 reads in this one.
        pin_memory: for copies to a GPU.
        context: how workers start ("fork", "spawn", "forkserver"); Python's default otherwise.
    """
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_as_is,
        prefetch_factor=4 if workers else None,
        multiprocessing_context=context if workers else None,
        worker_init_fn=_outlive_signals,
    )


def _outlive_signals(worker: int) -> None:
    """A scheduler signals every process of a job. The training process decides, and wants batches until it has saved.

    PyTorch's own handler would end the worker at anybody's SIGTERM. The parent's still does: without it, a process
    that leaves a loader open would wait for its workers forever.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def _as_is(batch: Any) -> Any:
    """Batches are ready: PyTorch would look through each for arrays to convert."""
    return batch


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)
