"""Show what runs are doing: state, step, speed, restarts, last checkpoint, alarms.

mmtok status runs/image/vqvae/*
mmtok status runs/mine --json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.cluster.status import RunStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--json", action="store_true", help="print a list for other programs")


def run(args: argparse.Namespace) -> int:
    from mmtok.cluster.status import ask_queue, status

    found, problems = [], []
    for path in args.runs:
        try:
            found.append(status(path))
        except ValueError as error:  # `runs/*` matches other things too: what is a run is shown
            problems.append(str(error))
    queue = ask_queue([one.job for one in found if one.job])
    found = [dataclasses.replace(one, queue=queue.get(one.job or "")) for one in found]
    if args.json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
    elif found:
        print(render(found))
    for line in problems:
        print(f"mmtok: {line}", file=sys.stderr)
    return 2 if problems else 0


def render(found: list[RunStatus]) -> str:
    """A line a run; what stands in the queue and what is wrong follows."""
    heads = ("run", "state", "step", "samples/s", "restarts", "checkpoint", "job")
    rows = [heads, *(_row(one) for one in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for i, one in enumerate(found):
        if one.alarms:
            lines[i + 1] += f"\n  ALARM: {', '.join(one.alarms)}"
    return "\n".join(lines)


def _row(one: RunStatus) -> tuple[str, ...]:
    speed = "" if one.samples_per_second is None else f"{one.samples_per_second:,.0f}"
    saved = "none" if one.checkpoint is None else f"{one.checkpoint}, {_age(one.checkpoint_age or 0)} ago"
    job = " ".join(part for part in (one.job, one.queue) if part)
    return one.run, one.state, f"{one.step:,}/{one.max_steps:,}", speed, str(one.restarts), saved, job


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
