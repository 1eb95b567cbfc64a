"""Whether a process that left something behind is still there: a pid alone does not tell, for it is given out again."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


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
