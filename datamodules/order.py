"""The order of samples, computed on integers: any position of an endless, mixed stream is found without a replay.

Samples are counted in global slots g = 0, 1, 2 ... Update b takes slots [b * batch, (b + 1) * batch). Slot g belongs to
stream g mod `streams`; within a stream, sets are mixed by an exact count, shards are permuted each epoch, and blocks of
`shuffle` samples are permuted. Nothing depends on workers, ranks or on what was read before. The shares of a mixture
hold over any range of slots to within a few samples, and do not drift.

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

MIX_WINDOW = 4
"""Ticks (one slot of every stream each) that are permuted among themselves in a mixture."""
_MIX_DRAWN = 1024
"""Ticks whose permutations are drawn at once."""
AHEAD = 1024
"""Least samples of a stream that count as its next stretch, for those who prepare what is read next."""
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

    def stretch(self, slot: int) -> tuple[int, int]:
        """(stream, number) of the stretch that a slot of this set lies in: a block long, AHEAD samples at least."""
        position, stream = divmod(slot, self.streams)
        return stream, position // max(self.block, AHEAD)

    def shards_of(self, stream: int, stretch: int) -> list[int]:
        """The shards that a stream reads in a stretch and in the one after it, in their order."""
        length = max(self.block, AHEAD)
        position, end = stretch * length, (stretch + 2) * length
        # Blocks begin anew with each epoch: the first one may have begun in the stretch before.
        position -= position % self.length % max(self.block, 1)
        shards: list[int] = []
        while position < end:
            epoch, within = divmod(position, self.length)
            shard, sample = self._locate(epoch, stream * self.length + within)
            if shard not in shards[-1:]:
                shards.append(shard)
            position += max(1, min(int(self.counts[shard]) - sample, self.length - within))
        return shards

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
        self._phases = [_spread(streams, 2 * i + 1) for i in range(len(exact))]
        self._ticks: OrderedDict[int, list[int]] = OrderedDict()

    def locate(self, slot: int) -> tuple[int, int]:
        """(set, slot of that set) of a global slot: a seek, whatever the slot."""
        if len(self.sets) == 1:
            return 0, slot
        tick, stream = divmod(slot, self.streams)
        chunk, index = divmod(tick, _MIX_DRAWN)
        tick = chunk * _MIX_DRAWN + self._permuted_ticks(chunk)[index]
        number, before = next((number, before) for number, before, took in self._splits(tick, stream) if took)
        return number, before * self.streams + stream

    def progress(self, slot: int) -> list[int]:
        """Samples of each set in the slots before a global slot."""
        if len(self.sets) == 1:
            return [slot]
        ticks, streams = divmod(slot, self.streams)
        # The ticks of an open window are permuted: its slots are looked at one by one.
        whole = ticks - ticks % MIX_WINDOW
        counts = [0] * len(self.sets)
        for stream in range(self.streams):
            for number, before, _ in self._splits(whole, stream):
                counts[number] += before
            for tick in range(whole, ticks + (stream < streams)):
                counts[self.locate(tick * self.streams + stream)[0]] += 1
        return counts

    def _splits(self, tick: int, stream: int) -> Iterator[tuple[int, int, bool]]:
        """(set, how often the stream came to it before a tick, whether this tick is the set's), set after set.

        Each set takes its share of what those before it left, as the whole numbers that k * share passes. The streams
        start apart by an equal part of one: summed over the streams, the roundings of a tick cancel.
        """
        taken = False
        for number, (share, phases) in enumerate(zip(self._shares, self._phases, strict=True)):
            step, unit = share.numerator * self.streams, share.denominator * self.streams
            done = tick * step + phases[stream] * share.denominator
            before, after = done // unit, (done + step) // unit
            takes = not taken and after > before
            yield number, before, takes
            taken = taken or takes
            tick -= before

    def _permuted_ticks(self, chunk: int) -> list[int]:
        """The ticks of a chunk, permuted within each window: alike for all streams, so that a tick's shares stay.

        Without it a share of 1/2 would be every other tick of a stream, which is all that a rank sees of it where there
        are twice as many ranks as streams.
        """
        if chunk not in self._ticks:
            drawn = _draw((self.seed & _MASK, 0, _MIX), (0, 0, chunk), _MIX_DRAWN).reshape(-1, MIX_WINDOW)
            starts = np.arange(0, _MIX_DRAWN, MIX_WINDOW)[:, None]
            self._ticks[chunk] = (drawn.argsort(axis=1, kind="stable") + starts).ravel().tolist()
            if len(self._ticks) > 2:
                self._ticks.popitem(last=False)
        return self._ticks[chunk]

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
    def check(cls, batch_size: int, world: int = 1, rank: int = 0, accumulate: int = 1, each: int = 1) -> BatchPlan:
        """A plan, if the global batch divides over ranks and accumulation, where each slot gives `each` items of it."""
        parts = world * accumulate * each
        if batch_size < 1 or batch_size % parts:
            lower = batch_size - batch_size % parts
            near = " or ".join(str(size) for size in (lower, lower + parts) if size > 0)
            raise ValueError(
                f"data.batch_size={batch_size} does not divide over {world} ranks x {accumulate} accumulation steps"
                f"{f' x {each} crops a clip' if each > 1 else ''}. Use {near}."
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank={rank} is not one of {world} ranks")
        return cls(batch_size // each, world, rank, accumulate)

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


def _spread(count: int, factor: int) -> list[int]:
    """A permutation of range(count) whose neighbours lie far apart: the ranks of multiples of the golden ratio."""
    heights = [i * factor * 0x9E3779B97F4A7C15 & _MASK for i in range(count)]
    ranks = {number: rank for rank, number in enumerate(sorted(range(count), key=heights.__getitem__))}
    return [ranks[number] for number in range(count)]


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
