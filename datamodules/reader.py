"""Places in the order -> decoded items: what cannot be read is counted, named, and its slot filled."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from datamodules.cache import FIGURES
from datamodules.order import Place, slot_seed
from datamodules.shardindex import ShardError
from datamodules.shards import Sample, ShardSet

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


def _told(bad: BadSample) -> str:
    """As the end of a message. Some reasons bring their remedy along."""
    remedy = "" if "mmtok shards" in bad.reason else " Look at all: mmtok shards verify."
    return f"{bad.key} in {bad.shard}: {bad.reason.rstrip('.')}.{remedy}"


class BadDataError(ValueError):
    """Too many samples cannot be read."""


def count_bad(bad: list[str], key: str, error: Exception, total: int, most: float) -> None:
    """Note a sample that a fit cannot use.

    Args:
        bad: those so far; it is added to them.
        key: of the sample.
        error: why.
        total: samples that the fit was to take.
        most: the share of them that may be bad, beside a few.

    Raises:
        BadDataError: there are more.
    """
    bad.append(f"{key}: {error}")
    if len(bad) > most * total + 16:
        raise BadDataError(
            f"{len(bad)} of {total} samples cannot be used (data.max_bad_fraction={most:.1%}). The last: {bad[-1]}. "
            "Look at all: mmtok shards verify."
        )


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
                f"{self.limit:.1%}). The last: {_told(self.last)}"
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
        self.seconds = {"read": 0.0, "decode": 0.0}
        """Spent since `figures` was last called: reading, with any wait for a shard, and decoding."""

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
        raise BadDataError(f"no sample of a whole block of data.shuffle can be read. {_told(own)}")

    def attempt(self, slot: int, place: Place) -> tuple[Any, BadSample | None]:
        """(item, None), or (None, what is wrong with it)."""
        source = self.sets[place.set]
        try:
            began = time.perf_counter()
            sample: Sample = source.read(place.shard, place.sample, self.extensions)
            ready = time.perf_counter()
            self.seconds["read"] += ready - began
            item = self.decode(SlotSample(*sample, slot_seed(self.seed, slot), slot, place.set))
            self.seconds["decode"] += time.perf_counter() - ready
            return item, None
        except (ShardError, OSError) as error:
            name = source.manifest.shards[place.shard].name
            return None, BadSample(name, source.key(place.shard, place.sample), str(error))

    def figures(self) -> dict[str, float]:
        """What this process did since the last call, by its names in the log; the same names every time."""
        taken = {f"speed/{name}_seconds": seconds for name, seconds in self.seconds.items()}
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        if any(one.remote for one in self.sets):
            taken |= {f"speed/{name}": 0.0 for name in FIGURES}
        for cache in {id(one.cache): one.cache for one in self.sets}.values():
            for name, amount in cache.figures.take().items():
                taken[f"speed/{name}"] += amount
        return taken
