"""Other processes: whether one still lives (a pid alone does not tell: it is given out again), and ending with one."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""


def machine() -> str:
    """The running kernel and the namespace of processes; empty where there is no telling (no /proc)."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def born(pid: int) -> int:
    """When a process began, in ticks since the machine did; -1 for one that is gone, also if nobody has asked it."""
    with suppress(OSError):
        # The name stands in parentheses and may hold anything: what follows the last one is state, parent, ...
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return -1 if fields[0] in "ZX" else int(fields[19])
    return -1


def end_with(parent: int) -> None:
    """Have this process told to end (SIGTERM) as soon as the thread that started it does, however that ends.

    Linux alone can; elsewhere what is left behind goes on until it is done.

    Args:
        parent: pid of the process that started this one.
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended before it could be waited for
        os.kill(os.getpid(), signal.SIGTERM)
