"""One process at a time may train in a run directory: the lease says which, and whether it still lives.

The file `lease` in the run directory names its holder; that its time of modification moves on is the heartbeat (a
touch needs no room on a full disk). A lease is stale, and taken over, when the process is gone on this very machine,
when the same job returns with a higher restart count, or when nothing was heard of it for two minutes.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread

from mmtok.processes import born, machine
from mmtok.schema import ConfigError

NAME = "lease"
BEAT = 20.0
"""Seconds between two heartbeats."""
STALE = 120.0
"""Seconds without a heartbeat after which a lease is void."""


@dataclass(frozen=True)
class Holder:
    """Who trains in a run directory."""

    host: str
    pid: int
    machine: str
    """Which kernel and which namespace of processes the pid is of: containers of one host may share its name."""
    born: int
    """When the process began, by the machine's count: a pid is given out again."""
    job: str
    """Of the scheduler; empty outside one."""
    restart: int
    """How often the scheduler has started this job anew."""
    token: str
    """Of this one start."""
    heartbeat: float = 0.0
    """When it was last heard of, in seconds since the epoch, by its own clock."""

    def alive(self) -> bool:
        """Whether the process may still be running: known on its own machine, by the heartbeat elsewhere."""
        if self.machine and self.machine == machine():
            return born(self.pid) == self.born
        return time.time() - self.heartbeat < STALE

    def __str__(self) -> str:
        process = f"process {self.pid} on {self.host}"
        return f"job {self.job}, {process}" if self.job else process


class LeaseLost(OSError):
    """Another process has taken the run directory over; this one must write nothing more."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(
            errno.ESTALE,
            "another process took this run over while nothing was heard of this one, and goes on with it. This one "
            "stops without saving",
            str(run_dir),
        )


class Lease:
    """The right to train in a run directory, from `acquire` to `release`; the first rank's.

    Args:
        run_dir: the run directory.
        environment: where the scheduler's variables are looked up.
    """

    def __init__(self, run_dir: Path, environment: Mapping[str, str] = os.environ) -> None:
        self.path = run_dir / NAME
        self.mine = _myself(environment)
        self.lost = False
        self._over = Event()

    def acquire(self) -> None:
        """Take the lease, from a holder that is gone where need be, and keep it alive.

        Raises:
            ConfigError: another process trains here, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _alone(self.path) as lock:
                holder = read_lease(self.path.parent)
                if holder is not None and not self._may_follow(holder):
                    raise ConfigError(_refusal(self.path, holder))
                draft = self.path.with_name(f"{NAME}.{self.mine.token}")
                try:
                    draft.write_text(json.dumps(asdict(self.mine)), encoding="utf-8")
                    os.replace(draft, self.path)
                except OSError:  # on a full disk folders and empty files can still be made
                    for litter in (draft, lock):
                        litter.unlink(missing_ok=True)
                    raise
        except OSError as error:
            with suppress(OSError):
                self.path.parent.rmdir()  # refused where it is not empty
            raise ConfigError(
                f"run_dir={self.path.parent} cannot be written ({error.strerror}). Give run_dir=ANOTHER, or make it "
                "writable."
            ) from error
        # A daemon: it ends with the process, however that ends.
        Thread(target=self._beat, name="lease", daemon=True).start()

    def _may_follow(self, holder: Holder) -> bool:
        came_back = bool(self.mine.job) and holder.job == self.mine.job and holder.restart < self.mine.restart
        return came_back or not holder.alive()

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self.lost = self.lost or not self._is_mine()
            if not self.lost:
                now = time.time()
                with suppress(OSError):  # an unreachable file system: the next beat may reach it
                    os.utime(self.path, (now, now))

    def _is_mine(self) -> bool:
        with suppress(OSError):
            holder = read_lease(self.path.parent)
            return holder is not None and holder.token == self.mine.token
        return True  # not known to be another's

    def check(self) -> None:
        """Before something is written for good.

        Raises:
            LeaseLost: another process took over, because nothing was heard of this one for too long.
        """
        self.lost = self.lost or not self._is_mine()
        if self.lost:
            raise LeaseLost(self.path.parent)

    def release(self) -> None:
        """Give the lease back, if it is still this process's. A run that came to write nothing leaves nothing."""
        self._over.set()
        with suppress(OSError):
            with _alone(self.path) as lock:
                if self._is_mine():
                    self.path.unlink(missing_ok=True)
                lock.unlink()
            self.path.parent.rmdir()  # refused where it is not empty


def read_lease(run_dir: Path) -> Holder | None:
    """Who holds a run directory; None where nobody does, or nobody can be made out.

    Raises:
        OSError: it cannot be read.
    """
    path = run_dir / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Holder(**content | {"heartbeat": path.stat().st_mtime})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # of a machine that lost power: its holder is gone
        return None


def _refusal(path: Path, holder: Holder) -> str:
    silent = max(0.0, time.time() - holder.heartbeat)
    stop = f"scancel {holder.job}" if holder.job else f"kill {holder.pid}"
    dead = ""
    if not holder.machine or holder.machine != machine():  # whether it lives cannot be seen from here
        dead = f" If it is gone, its lease lapses in {max(1, round(STALE - silent))} s; at once by: rm {path}."
    return (
        f"{path.parent} is in use by {holder}, heard of {silent:.0f} s ago. Two runs in one folder would overwrite "
        f"each other: wait for it, stop it ({stop}), or give run_dir=ANOTHER.{dead}"
    )


def _myself(environment: Mapping[str, str]) -> Holder:
    """This process, as a holder."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=machine(),
        born=born(os.getpid()),
        job=environment.get("SLURM_JOB_ID", ""),
        restart=int(environment.get("SLURM_RESTART_COUNT") or 0),
        token=uuid.uuid4().hex,
    )


@contextmanager
def holding(run_dir: Path, first: bool) -> Iterator[Lease | None]:
    """The lease of a run directory for as long as this lasts: of the first rank's process, None in the others'."""
    if not first:
        yield None
        return
    absent = [folder for folder in run_dir.parents if not folder.exists()]
    lease = Lease(run_dir)
    try:
        lease.acquire()
        try:
            yield lease
        finally:
            lease.release()
    finally:
        for folder in absent:  # what was refused before it began leaves nothing, not even folders around it
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Between processes that look at a lease and then write it: the lock. The system lets go of it with the process."""
    lock = path.with_name(f".{NAME}.lock")
    while True:
        with lock.open("w") as file:
            with suppress(OSError):  # a file system without locks: what remains is a window of milliseconds
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(lock, file.fileno()):  # not one that its last holder took away meanwhile
                yield lock
                return


def _is(path: Path, descriptor: int) -> bool:
    """Whether a path still names an open file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
