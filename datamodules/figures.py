"""What the loader did, counted where it happens and carried to the log by the batches."""

from __future__ import annotations

import threading
from collections import defaultdict


class Figures:
    """Sums of one process since they were last taken: "cache_hits", "fetch_seconds", "decode_seconds" ..."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, **amounts: float) -> None:
        """Count; threads fetch ahead while another one reads."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    def take(self) -> dict[str, float]:
        """What was counted since the last call."""
        with self._lock:
            taken, self._sums = dict(self._sums), defaultdict(float)
        return taken

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return Figures, ()  # a lock cannot travel, and every process counts for itself
