"""What runs are doing, read from their directories: no job, no torch, nothing is changed."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mmtok.training.lease import read_lease

JOB = "job"
"""File in a run directory: the id of the job that was submitted for it."""


@dataclass(frozen=True)
class RunStatus:
    """One run."""

    run: str
    state: str
    """running, complete, requeued (saved, waits to go on), stopped, submitted (nothing done yet), or new."""
    step: int
    """Updates at the last line of the log."""
    max_steps: int
    samples_per_second: float | None
    """In the last window of the log."""
    restarts: int
    """Starts of jobs after the first."""
    checkpoint: str | None
    """The newest one, and its step where that is known without reading it."""
    checkpoint_age: float | None
    """Seconds since it was written."""
    job: str | None
    """Id of the job that was submitted last."""
    queue: str | None
    """State of that job, where SLURM can be asked and knows it."""
    alarms: list[str] = field(default_factory=list)
    """Those that stand at their last reading."""


def status(run_dir: Path, queue: dict[str, str] | None = None) -> RunStatus:
    """Look at one run directory.

    Args:
        run_dir: what `mmtok train` or `mmtok submit` made.
        queue: {job id: state}, as SLURM has it.

    Raises:
        ValueError: it is no run, or its configuration is damaged.
    """
    saved = run_dir / "config.yaml"
    if not saved.is_file():
        raise ValueError(f"{run_dir} is no run: there is no config.yaml in it.")
    try:
        plain = yaml.safe_load(saved.read_text(encoding="utf-8"))
        # What is fitted has no trainer: its one pass is its one step.
        max_steps = 1 if "trainer" not in plain and plain["tokenizer"] else int(plain["trainer"]["max_steps"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        raise ValueError(f"{saved} cannot be read as a run's configuration: it is damaged, or another's.") from None
    last = _last_values(run_dir / "metrics.csv")
    step = int(last.get("step", 0))
    checkpoint = _newest_checkpoint(run_dir)
    job = (run_dir / JOB).read_text(encoding="utf-8").strip() if (run_dir / JOB).is_file() else None
    starts = run_dir / "starts"
    return RunStatus(
        run=str(run_dir),
        state=_state(run_dir, checkpoint is not None, step >= max_steps, job),
        step=step,
        max_steps=max_steps,
        samples_per_second=last.get("speed/samples_per_second"),
        restarts=max(0, len(starts.read_text(encoding="utf-8").splitlines()) - 1) if starts.is_file() else 0,
        checkpoint=_checkpoint_name(checkpoint) if checkpoint else None,
        checkpoint_age=time.time() - checkpoint.stat().st_mtime if checkpoint else None,
        job=job,
        queue=(queue or {}).get(job or ""),
        alarms=[name.removeprefix("alarm/") for name, value in last.items() if name.startswith("alarm/") and value],
    )


def _state(run_dir: Path, saved: bool, at_the_end: bool, job: str | None) -> str:
    holder = read_lease(run_dir)
    if holder is not None and holder.alive():
        return "running"
    if (run_dir / "REQUEUE").is_file():
        return "requeued"
    if saved:
        return "complete" if at_the_end else "stopped"
    return "new" if job is None else "submitted"


def _last_values(path: Path) -> dict[str, float]:
    """The newest value of every column of `metrics.csv`; most are written at some steps only."""
    if not path.is_file():
        return {}
    latest: dict[str, float] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            latest |= {name: float(value) for name, value in row.items() if name and value}
    return latest


def _newest_checkpoint(run_dir: Path) -> Path | None:
    """The one that training would try first. None is read; a file without content is passed over."""
    folder = run_dir / "checkpoints"
    kept = sorted(folder.glob("step-*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path for path in (folder / "last.ckpt", *kept) if path.is_file() and path.stat().st_size), None)


def _checkpoint_name(newest: Path) -> str:
    """`last.ckpt` and the `step-N.ckpt` beside it are two names of one file where that step is kept."""
    same = [other for other in newest.parent.glob("step-*.ckpt") if other.stat().st_ino == newest.stat().st_ino]
    return same[0].name if same else newest.name


def ask_queue(jobs: Sequence[str]) -> dict[str, str]:
    """{job id: state} of those that SLURM still knows; empty where it cannot be asked."""
    if not jobs or shutil.which("squeue") is None:
        return {}
    # --array: those that wait would stand in one line, as 12_[3-7].
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--format=%i %T %r",
        "--jobs",
        ",".join(job.split("_")[0] for job in jobs),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return {}
    lines = (line.split(maxsplit=2) for line in done.stdout.splitlines())
    return {parts[0]: " ".join(parts[1:]).replace(" None", "") for parts in lines if len(parts) >= 2}
