"""What the demos share: a command shown as it would be typed, and a training that fits the time there is."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

PROBE_STEPS = 25
"""Steps that measure the speed of this machine, before the number of steps is chosen."""


def train(recipe: str, run: Path, settings: list[str], minutes: float, out: Path) -> None:
    """Measure the speed, choose threads and the number of steps that fits the time, train."""
    # Two threads that wait for each other are slower than one where another program has part of a core.
    speeds = {
        threads: probe(recipe, settings, threads, out / f"probe-{threads}") for threads in {1, os.cpu_count() or 1}
    }
    threads, seconds = min(speeds.items(), key=lambda item: item[1])
    steps = max(200, min(6000, int(minutes * 60 / seconds) // 100 * 100))
    print(f"\n{seconds:.2f} s a step with {threads} threads: {steps:,} steps in about {minutes:.0f} minutes.")
    length = [f"trainer.max_steps={steps}", f"trainer.val_every={max(100, steps // 4 // 100 * 100)}"]
    mmtok("train", recipe, *settings, f"run_dir={run}", *length, f"trainer.threads={threads}")


def probe(recipe: str, settings: list[str], threads: int, run: Path) -> float:
    """Seconds a step on this machine."""
    shutil.rmtree(run, ignore_errors=True)
    quiet = ["log.tensorboard=false", "log.media_every_steps=0", "data.val_samples=8", "trainer.val_every=0"]
    length = [f"trainer.max_steps={PROBE_STEPS}", f"trainer.threads={threads}"]
    mmtok("train", recipe, *settings, *quiet, f"run_dir={run}", *length)
    # The last row of the log covers the steps after the first, which has the start-up in it.
    with (run / "metrics.csv").open() as file:
        return float(list(csv.DictReader(file))[-1]["speed/step_seconds"])


def mmtok(*words: str) -> None:
    """One command, shown as it would be typed."""
    print(f"\n$ mmtok {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "mmtok", *words], check=True)
