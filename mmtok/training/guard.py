"""Stops a run whose loss is no number any more, by the batch that did it, without waiting for the device each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """The loss or its gradient became NaN or infinite. Nothing that was saved knows of it."""


class FiniteGuard:
    """Looks at the gradient norm of every update.

    On a CPU the answer is there at once, and the update that would do damage never happens. On a GPU asking for it
    would stop the host until the device is done, every step, so that the answer is read where the host waits anyway: at
    a line of the log, a validation or a checkpoint. Until then the run goes on, and writes nothing.

    Args:
        advice: what the person can try.
    """

    def __init__(self, advice: str) -> None:
        self.advice = advice
        self._bad: Tensor | None = None
        self._first: Tensor | None = None
        self._seen: list[tuple[int, int, Sequence[str]]] = []

    def look(self, norm: Tensor, step: int, rank: int, batch: Mapping[str, Any], *, wait: bool) -> None:
        """Take in the norm of one update, the same on every rank.

        Args:
            norm: 0-d, of all gradients.
            step: the update.
            rank: this process.
            batch: whose `key` names the samples.
            wait: read the answer now.

        Raises:
            NonFiniteError: with `wait`, and the norm is NaN or infinite.
        """
        bad = ~torch.isfinite(norm.detach())
        place = torch.full_like(bad, len(self._seen), dtype=torch.int64)
        if self._bad is None or self._first is None:
            self._bad, self._first = bad, place
        else:
            self._first = torch.where(self._bad, self._first, place)
            self._bad = self._bad | bad
        self._seen.append((step, rank, list(batch.get("key", ()))))
        if wait:
            self.check()

    def check(self) -> None:
        """Read what was seen since the last call.

        Raises:
            NonFiniteError: an update was not finite; names the first.
        """
        if self._bad is None or self._first is None:
            return
        seen, bad, first = self._seen, self._bad, self._first
        self._bad, self._first, self._seen = None, None, []
        if not bool(bad):
            return
        step, rank, keys = seen[int(first)]
        named = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        later = len(seen) - 1 - int(first)
        since = f"The {later} updates since are lost with it" if later else "Nothing was changed by it"
        raise NonFiniteError(
            f"the loss or its gradient is not finite at step {step} (rank {rank}, samples {named or 'unnamed'}). "
            f"{since}, and what was saved before stands. {self.advice}"
        )
