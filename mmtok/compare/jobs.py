"""Cells in processes of their own, some at a time: what one does to memory or to the random state, no other feels."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

LOG = "compare.log"


class Failure(NamedTuple):
    """A cell that could not be done."""

    folder: Path
    said: str
    """The last words of its log."""


class _Running(NamedTuple):
    folder: Path
    process: subprocess.Popen[bytes]
    log: IO[bytes]


def run_cells(folders: Sequence[Path], jobs: int, say: Callable[[str], None] = print) -> list[Failure]:
    """Do all cells; one that fails keeps no other from being done.

    Args:
        folders: of the cells.
        jobs: cells at a time; the cores are shared among them.
        say: where to tell of progress.
    """
    waiting, running, failed = list(folders), list[_Running](), list[Failure]()
    began, done = time.monotonic(), 0
    before = signal.signal(signal.SIGTERM, _stop)
    threads = max(1, (os.cpu_count() or 1) // jobs)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), threads))
            time.sleep(0.2)
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                one.log.close()
                done += 1
                if one.process.returncode:
                    failed.append(Failure(one.folder, last_words(one.folder)))
                    say(f"{_name(one.folder)}: FAILED. {failed[-1].said}")
                left = (time.monotonic() - began) / done * (len(folders) - done)
                say(f"{done}/{len(folders)} cells, about {left / 60:.0f} min left ({_name(one.folder)})")
    finally:
        for one in running:  # Ctrl-C: each saves where it is, and the same command goes on from there
            one.process.terminate()
        for one in running:
            one.process.wait()
            one.log.close()
        signal.signal(signal.SIGTERM, before)
    return failed


def _stop(*_: object) -> None:
    """To be told to end is as Ctrl-C: cells that go on without their comparison would be in the next one's way."""
    raise KeyboardInterrupt


def _start(folder: Path, threads: int) -> _Running:
    log = (folder / LOG).open("ab")
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmtok", "compare", "--cell", str(folder)],
        stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
    )  # fmt: skip
    return _Running(folder, process, log)


def last_words(folder: Path) -> str:
    """The last line of a cell's log."""
    try:
        lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return f"{lines[-1]} ({folder / LOG})" if lines else f"It said nothing ({folder / LOG})."


def _name(folder: Path) -> str:
    return f"{folder.parent.name}, {folder.name}"
