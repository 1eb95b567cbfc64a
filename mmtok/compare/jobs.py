"""Cells in processes of their own, some at a time: what one does to memory or to the random state, no other feels."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

LOG = "compare.log"
MESSAGE = 20
"""Lines of an error's message at most."""


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
        [sys.executable, "-m", "mmtok", "compare", "--parent", str(os.getpid()), "--cell", str(folder)],
        stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
    )  # fmt: skip
    return _Running(folder, process, log)


def last_words(folder: Path) -> str:
    """What a cell's log ends with: its last line, or the error of a traceback and where it was raised."""
    try:
        lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    if not lines:
        return f"It said nothing ({folder / LOG})."
    return f"{_raised(lines) or lines[-1]} ({folder / LOG})"


def _raised(lines: Sequence[str]) -> str:
    """The error of the traceback that a log ends with, its file and line; empty where it ends with something else."""
    end = next((i + 1 for i in reversed(range(len(lines))) if lines[i].startswith("  ")), len(lines))
    places = [found for line in lines[:end] if (found := re.match(r'  File "(.+)", line (\d+)', line))]
    # A message may have several lines; what an earlier call left stands further up.
    last = end < len(lines) <= end + MESSAGE and re.match(r"[A-Za-z_][\w.]*(: |$)", lines[end])
    if not (places and last) or any(line.startswith("mmtok: ") for line in lines[end:]):
        return ""
    return f"{lines[end]}, at {places[-1][1]}, line {places[-1][2]}"


def _name(folder: Path) -> str:
    return f"{folder.parent.name}, {folder.name}"
