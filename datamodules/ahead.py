"""Fetches remote shards before their samples are due, in threads of the process that will read them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Sequence

from datamodules.order import StreamOrder
from datamodules.shards import ShardSet

THREADS = 4
"""Shards that one process fetches ahead at a time."""


class Ahead:
    """Follows the slots that are read, and has the shards of each stream's present and next stretch fetched.

    What fails here is left to the reader, which needs the shard, tries again and tells the person.
    """

    def __init__(self, sets: Sequence[ShardSet], order: StreamOrder) -> None:
        self.sets = [one if one.remote else None for one in sets]
        self.order = order
        self._at: dict[tuple[int, int], int] = {}
        self._queue: queue.SimpleQueue[tuple[ShardSet, int]] = queue.SimpleQueue()
        self._started = False

    def follow(self, slots: Iterable[int]) -> None:
        """Take note of slots that are about to be read: one of each stream is enough."""
        for slot in slots if any(self.sets) else ():
            number, own = self.order.locate(slot)
            source = self.sets[number]
            if source is None:
                continue
            stream, stretch = self.order.sets[number].stretch(own)
            if self._at.get((number, stream)) == stretch:
                continue
            self._at[number, stream] = stretch
            for shard in self.order.sets[number].shards_of(stream, stretch):
                if source.is_remote(shard):
                    self._queue.put((source, shard))
            self._start()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            for _ in range(THREADS):
                # Daemons: a worker that is told to end does not wait for a download.
                threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            source, shard = self._queue.get()
            try:
                source.prefetch(shard)
            except (ValueError, OSError):
                continue
