"""Starts of a run that may be killed: its ranks as forked processes. For `benchmarks/kills.py`.

The parent has imported everything, and each rank gets the variables that torchrun gives: starting Python and importing
would take most of the time, and is not what is tested.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from benchmarks.faults import POINTS, Fault, record
from mmtok.config import parse_config
from mmtok.training.callbacks.preemption import Preempted
from mmtok.training.run import train

PATIENCE = 400.0
"""Seconds for a life to come to its end."""
GRACE = 15.0
"""Seconds that the other ranks have to notice a dead one, before they are ended as srun would end them."""
STOPPED = 75
"""Exit status of a rank that was told to stop and saved."""


class Life:
    """One start of a run.

    Args:
        run: the configuration's tree.
        number: of this start.
        point: where to die, if anywhere (see `benchmarks/faults.py`).
        at: update from which on.
        rank: that dies.
    """

    def __init__(self, run: Mapping[str, Any], number: int, point: str = "", at: int = 0, rank: int = 0) -> None:
        self.run, self.number, self.point, self.at, self.rank = run, number, point, at, rank
        self.world = run["trainer"]["devices"]
        self.steps = multiprocessing.RawArray("q", [-1] * self.world)
        """Update that each rank is in, counted from 0; -1 before the first."""
        self.ended: dict[int, int] = {}
        """Exit status by rank, negative for a signal."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.pids = [self._fork(rank) for rank in range(self.world)]

    def _fork(self, rank: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            status = self._live(rank)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _live(self, rank: int) -> int:
        """What a rank does; returns its exit status."""
        folder = self.run["run_dir"]
        output = os.open(f"{folder}-rank{rank}.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if self.world > 1:
            os.environ |= {
                "TORCHELASTIC_RUN_ID": "kills", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port),
                "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
                "WORLD_SIZE": str(self.world), "LOCAL_WORLD_SIZE": str(self.world),
            }  # fmt: skip
            rank_zero_only.rank = rank  # type: ignore[attr-defined]  # elsewhere read from RANK at the import
        fault = Fault(self.at)
        if self.point and rank == self.rank:
            POINTS[self.point](fault)
        record(Path(f"{folder}-rank{rank}.log"), self.number, self.steps, rank, fault)
        try:
            train(parse_config(self.run))
        except Preempted:
            return STOPPED
        return 0

    def reached(self, rank: int, step: int) -> bool:
        """Wait for a rank to begin an update; False if the life ends before."""
        deadline = time.monotonic() + PATIENCE
        while not self._look() and time.monotonic() < deadline:
            if self.steps[rank] >= step:
                return True
            time.sleep(0.002)
        return False

    def signal(self, rank: int, name: str) -> None:
        """Send one rank a signal."""
        if rank not in self.ended:
            os.kill(self.pids[rank], signal.Signals[name])

    def end(self) -> dict[int, int]:
        """Wait for all ranks, and end those that a dead one leaves waiting.

        Returns:
            Exit status by rank, negative for a signal.
        """
        deadline = time.monotonic() + PATIENCE
        while not self._look():
            if any(status not in (0, STOPPED) for status in self.ended.values()):
                deadline = min(deadline, time.monotonic() + GRACE)
            if time.monotonic() > deadline:
                for rank in set(range(self.world)) - set(self.ended):
                    self.signal(rank, "SIGKILL")
            time.sleep(0.01)
        return self.ended

    def _look(self) -> bool:
        """Take note of ranks that have ended; whether all have."""
        for rank in set(range(self.world)) - set(self.ended):
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self.ended[rank] = os.waitstatus_to_exitcode(status)
        return len(self.ended) == self.world
