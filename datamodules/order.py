"""The order of samples, computed on integers: any position of an endless, mixed stream is found without a replay.

Samples are counted in global slots g = 0, 1, 2 ... Update b takes slots [b * batch, (b + 1) * batch). Slot g belongs to
stream g mod `streams`; within a stream, sets are mixed by an exact count, shards are permuted each epoch, and blocks of
`shuffle` samples are permuted. Nothing depends on workers, ranks or on what was read before.

Every draw is Philox, keyed by the seed and counted by (epoch, stream, block). Only its raw output is used: numpy
promises that it never changes, and does not promise that of `Generator.permutation`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

MIX_WINDOW = 1024
"""Slots of a stream over which the sets of a mixture are scattered; their shares are exact over each window."""
_MASK = (1 << 64) - 1
_SHARDS, _BLOCK, _MIX, _OFFSET = range(4)


class Place(NamedTuple):
    """Where a sample is."""

    set: int
    shard: int
    sample: int


class SetOrder:
    """The order of one shard set: epoch after epoch, each a permutation of all but the remainder of its samples."""

    def __init__(self, counts: Sequence[int] | np.ndarray, *, seed: int, streams: int, shuffle: int, salt: int) -> None:
        """Prepare the order.

        Args:
            counts: samples of each shard, as the manifest lists them.
            seed: seed of the run.
            streams: canonical streams.
            shuffle: samples of a stream permuted together; 0 for none.
            salt: number of the set in its mixture, so that two sets of equal shape are not permuted alike.
        """
        self.counts = np.asarray(counts, dtype=np.int64)
        self.samples = int(self.counts.sum())
        self.streams = streams
        self.length = self.samples // streams
        """Samples of one stream in an epoch."""
        if not self.length:
            raise ValueError(
                f"data.streams={streams} needs as many samples, the shard set holds {self.samples}. "
                f"Use data.streams={max(self.samples, 1)} or fewer."
            )
        self.block = min(shuffle, self.length)
        self._key = (seed & _MASK, salt)
        self._epochs: OrderedDict[Hashable, tuple[list[int], list[int], int]] = OrderedDict()
        self._blocks: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def epoch(self, slot: int) -> int:
        """Which pass over the set a slot of the set falls in."""
        return slot // (self.length * self.streams)

    def places(self, slot: int) -> Iterator[tuple[int, int]]:
        """(shard, sample) of a slot of this set, then the rest of its block: what fills the slot if it is bad."""
        epoch, within = divmod(slot, self.length * self.streams)
        position, stream = divmod(within, self.streams)
        size = max(self.block, 1)
        block, index = divmod(position, size)
        size = min(size, self.length - block * size) if self.block else 1
        start = stream * self.length + position - index
        for i in range(size):
            local = (index + i) % size
            if self.block:
                local = int(self._permuted(epoch, stream, block, size)[local])
            yield self._locate(epoch, start + local)

    def _locate(self, epoch: int, position: int) -> tuple[int, int]:
        """(shard, sample) of a position in the shards of an epoch laid end to end."""
        if epoch not in self._epochs:
            shards = _permutation((*self._key, _SHARDS), (epoch, 0, 0), len(self.counts))
            # The lap starts anywhere in a shard: each epoch cuts streams, blocks and the remainder elsewhere.
            offset = int(_draw((*self._key, _OFFSET), (epoch, 0, 0), 1)[0] % self.samples)
            self._epochs[epoch] = (shards.tolist(), self.counts[shards].cumsum().tolist(), offset)
            if len(self._epochs) > 2:
                self._epochs.popitem(last=False)
        shards_, ends, offset = self._epochs[epoch]
        position = (position + offset) % self.samples
        i = bisect_right(ends, position)
        return shards_[i], position - (ends[i - 1] if i else 0)

    def _permuted(self, epoch: int, stream: int, block: int, size: int) -> np.ndarray:
        return _kept(self._blocks, 2 * self.streams, (*self._key, _BLOCK), (epoch, stream, block), size)


class StreamOrder:
    """The order of a mixture of shard sets, in global slots."""

    def __init__(
        self,
        counts: Sequence[Sequence[int] | np.ndarray],
        *,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        streams: int = 8,
        shuffle: int = 4096,
    ) -> None:
        """Prepare the order; nothing is drawn yet.

        Args:
            counts: samples of each shard of each set.
            weights: share of each set, relative to the others'; equal by default.
            seed: seed of the run.
            streams: canonical streams. Each rank reads its own where the world divides them.
            shuffle: samples of a stream permuted together; 0 reads each shard in its order.
        """
        weights = weights or [1.0] * len(counts)
        if streams < 1 or shuffle < 0:
            raise ValueError(f"data.streams={streams} must be at least 1 and data.shuffle={shuffle} at least 0.")
        if len(weights) != len(counts) or not all(0 < weight < float("inf") for weight in weights):
            raise ValueError(f"data.shards: every set needs a weight above 0, got {list(weights)}.")
        self.seed, self.streams = seed, streams
        self.sets = [
            SetOrder(one, seed=seed, streams=streams, shuffle=shuffle, salt=salt) for salt, one in enumerate(counts)
        ]
        # Of those slots that no earlier set took, the share of each set: exact fractions of the weights as written.
        exact = [Fraction(repr(float(weight))) for weight in weights]
        self._shares = [weight / sum(exact[i:]) for i, weight in enumerate(exact)]
        self._windows: OrderedDict[Hashable, np.ndarray] = OrderedDict()

    def locate(self, slot: int) -> tuple[int, int]:
        """(set, slot of that set) of a global slot: a seek, whatever the slot."""
        if len(self.sets) == 1:
            return 0, slot
        tick, stream = divmod(slot, self.streams)
        window, index = divmod(tick, MIX_WINDOW)
        # Scattered within a window: a share of 1/2 must not mean every other slot, which may be one rank's.
        key = (self.seed & _MASK, 0, _MIX)
        tick += int(_kept(self._windows, 2 * self.streams, key, (0, stream, window), MIX_WINDOW)[index]) - index
        for number, share in enumerate(self._shares):
            before, after = (
                # The streams start a fraction apart, so that their roundings do not add up.
                ((tick + i) * share.numerator * self.streams + stream * share.denominator)
                // (share.denominator * self.streams)
                for i in (0, 1)
            )
            if after > before:
                return number, before * self.streams + stream
            tick -= before
        raise AssertionError("the last share is 1")

    def places(self, slot: int) -> Iterator[Place]:
        """The sample of a slot, then those that may fill it if it cannot be read."""
        number, own = self.locate(slot)
        for shard, sample in self.sets[number].places(own):
            yield Place(number, shard, sample)

    def place(self, slot: int) -> Place:
        """The sample of a slot."""
        return next(self.places(slot))


class BatchPlan(NamedTuple):
    """Which slots a rank takes, and in which micro batch."""

    batch_size: int
    world: int = 1
    rank: int = 0
    accumulate: int = 1

    @classmethod
    def check(cls, batch_size: int, world: int = 1, rank: int = 0, accumulate: int = 1) -> BatchPlan:
        """A plan, if the global batch divides over ranks and accumulation."""
        parts = world * accumulate
        if batch_size < 1 or batch_size % parts:
            lower = batch_size - batch_size % parts
            near = " or ".join(str(size) for size in (lower, lower + parts) if size > 0)
            raise ValueError(
                f"data.batch_size={batch_size} does not divide over {world} ranks x {accumulate} accumulation steps. "
                f"Use {near}."
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} is not one of {world} ranks")
        return cls(batch_size, world, rank, accumulate)

    @property
    def micro_size(self) -> int:
        """Samples of a micro batch of one rank."""
        return self.batch_size // (self.world * self.accumulate)

    def slots(self, micro_batch: int) -> range:
        """Global slots of this rank's micro batch, counted from the first one of update 0."""
        update, part = divmod(micro_batch, self.accumulate)
        first = update * self.batch_size + self.rank + part * self.micro_size * self.world
        return range(first, first + self.micro_size * self.world, self.world)


def slot_seed(seed: int, slot: int) -> int:
    """63 bits for the augmentation of a slot: the same for any rank, worker or restart."""
    x = 0
    # Two rounds of splitmix64. The seed is mixed before the slot joins it: seed 1, slot 2 must not be seed 2, slot 1.
    for word in (seed & _MASK, slot & _MASK):
        x = (x ^ word) * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019 & _MASK
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
        x ^= x >> 31
    return x >> 1


def _draw(key: tuple[int, int, int], count: tuple[int, int, int], n: int) -> np.ndarray:
    """(n,) raw 64-bit draws of one counter."""
    seed, salt, purpose = key
    return np.random.Philox(key=[seed, salt << 8 | purpose], counter=[0, *reversed(count)]).random_raw(n)


def _permutation(key: tuple[int, int, int], count: tuple[int, int, int], n: int) -> np.ndarray:
    return _draw(key, count, n).argsort(kind="stable").astype(np.uint32)


def _kept(
    store: OrderedDict[Hashable, np.ndarray], limit: int, key: tuple[int, int, int], count: tuple[int, int, int], n: int
) -> np.ndarray:
    """A permutation, kept while its block is read: the streams advance together, two blocks each are enough."""
    if count not in store:
        store[count] = _permutation(key, count, n)
        if len(store) > limit:
            store.popitem(last=False)
    return store[count]
