"""Reads samples in the order of `order.py` and hands out micro batches: what stands between shards and a data module.

Resuming is a seek to an update. Ranks are given, never read from the environment: a worker that was spawned sees
neither RANK nor the process group, and would silently read what every other rank reads.
"""

from __future__ import annotations

import os
import signal
import threading
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.ahead import Ahead
from datamodules.base import DataConfig
from datamodules.order import BatchPlan, Place, StreamOrder
from datamodules.reader import BadSample, Collate, Decode, Reader
from datamodules.shards import ShardSet, share_of_files


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
        self.plan = BatchPlan.check(config.batch_size, world, rank, accumulate, config.items_per_sample)
        self.start_update = start_update
        self.reader = Reader(sets, decode, seed=seed, max_bad_fraction=config.max_bad_fraction, extensions=extensions)
        self.collate = collate
        self.names = set_names(sets)
        super().__init__(self._slots, self._read)

    def _slots(self) -> Iterator[range]:
        """Stage: the slots of each micro batch of this worker."""
        worker, workers = _worker()
        micro_batch = self.start_update * self.plan.accumulate + worker
        ahead = Ahead(self.reader.sets, self.order)
        while True:
            slots = self.plan.slots(micro_batch)
            ahead.follow(slots[: self.order.streams])
            yield slots
            micro_batch += workers

    def _read(self, source: Iterator[range]) -> Iterator[dict[str, Any]]:
        """Stage: slots -> a batch."""
        for slots in source:
            items, bads = zip(*(self.reader.read(slot, self.order.places(slot)) for slot in slots), strict=True)
            figures = self.reader.figures() | self._position(slots)
            yield self.collate(list(items)) | {"bad": [bad for bad in bads if bad], "loader": figures}

    def _position(self, slots: range) -> dict[str, float]:
        """How far each set is read at the end of these slots, over all ranks: arithmetic, the same on each."""
        found = {}
        end = slots[-1] - self.plan.rank + self.plan.world  # of the ranks' last slots, the last
        for name, order, samples in zip(self.names, self.order.sets, self.order.progress(end), strict=True):
            found[f"data/epochs{name}"] = samples / (order.length * order.streams)
            if name:
                found[f"data/samples{name}"] = float(samples)
        return found


class ValStream(IterableDataset):
    """The first samples of each set in their order, set after set: equally many batches of equal size on every rank.

    Batches carry "valid", a list of bool that stays on the host: False for padding and for a sample that could not be
    read, whose place another takes. Sums over valid items, reduced over ranks, are exact for any world size.
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
        extensions: Collection[str] | None = None,
    ) -> None:
        BatchPlan.check(world, world, rank)
        taken = [min(len(one), config.val_samples) for one in sets]
        self.samples = sum(taken)
        if self.samples < 1:
            raise ValueError(f"data.val_samples={config.val_samples} leaves nothing to validate on.")
        self.rank, self.world = rank, world
        self.firsts = [sum(taken[:i]) for i in range(len(taken))]
        self.ends = [one.counts.cumsum().tolist() for one in sets]
        per_rank = -(-self.samples // world)
        self.batch_size = min(config.val_batch_size, per_rank)
        self.batches = -(-per_rank // self.batch_size)
        self.reader = Reader(sets, decode, seed=seed, max_bad_fraction=config.max_bad_fraction, extensions=extensions)
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
            which = bisect_right(self.firsts, number) - 1
            ends, within = self.ends[which], number - self.firsts[which]
            shard = bisect_right(ends, within)
            yield Place(which, shard, within - (ends[shard - 1] if shard else 0))


def only_valid(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    """A validation batch without its padding and without what stands in for unreadable samples."""
    valid = batch.get("valid")
    if valid is None or all(valid):
        return batch
    kept = [i for i, good in enumerate(valid) if good]
    tensors = {
        name: value[torch.tensor(kept, device=value.device, dtype=torch.int64)]
        for name, value in batch.items()
        if isinstance(value, Tensor)
    }
    lists = {
        name: [value[i] for i in kept] for name, value in batch.items() if isinstance(value, list) and name != "bad"
    }
    return {**batch, **tensors, **lists}


def open_set(path: str, config: DataConfig) -> ShardSet:
    """A shard set with the cache that the configuration names, and its share of the files that may be open."""
    limit = None if config.cache_gb is None else int(config.cache_gb * 1e9)
    sets = 1 if isinstance(config.shards, str) else len(config.shards)
    return ShardSet.open(
        path, cache_dir=config.cache_dir, cache_bytes=limit, allow_pipe=config.allow_pipe,
        max_open=share_of_files(sets),
    )  # fmt: skip


def open_sets(config: DataConfig) -> list[ShardSet]:
    """The shard sets of `config.shards`.

    Raises:
        ValueError: they hold different kinds of sample.
    """
    paths = [config.shards] if isinstance(config.shards, str) else [one.path for one in config.shards]
    sets = [open_set(path, config) for path in paths]
    kinds = {path: one.manifest.kind for path, one in zip(paths, sets, strict=True)}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{path} of {kind}" for path, kind in kinds.items())
        raise ValueError(f"data.shards mixes different kinds of sample: {said}. Mix sets of one kind.")
    return sets


def set_names(sets: Sequence[ShardSet]) -> list[str]:
    """What the sets of a mixture add to the names of their figures; nothing for a single one."""
    if len(sets) == 1:
        return [""]
    names = [one.name(2) for one in sets]
    return [f"/{name}" if names.count(name) == 1 else f"/{i}-{name}" for i, name in enumerate(names)]


def stream_order(sets: Sequence[ShardSet], config: DataConfig, seed: int) -> StreamOrder:
    """The order of training over these sets."""
    weights = None if isinstance(config.shards, str) else [one.weight for one in config.shards]
    counts = [one.counts for one in sets]
    return StreamOrder(counts, weights=weights, seed=seed, streams=config.streams, shuffle=config.shuffle)


def loader(
    stream: IterableDataset, workers: int, *, pin_memory: bool = False, context: str | None = None
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
