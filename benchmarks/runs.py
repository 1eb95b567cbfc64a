"""Rows of a table that are runs, trained and measured by the commands in processes of their own."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def mmtok(*words: str) -> None:
    """One command of the platform; its output goes on to ours."""
    subprocess.run([sys.executable, "-m", "mmtok", *words], check=True)


def shards(source: str | Path, out: Path, *words: str) -> Path:
    """The shard sets of a source, built once."""
    folder = out / "shards"
    if not (folder / "train" / "manifest.json").is_file():
        mmtok("shards", "build", str(source), "-o", str(folder), *words)
    return folder


def measure(run: Path, words: list[str], steps: int, evaluation: tuple[str, ...]) -> dict[str, Any]:
    """Train one row to `steps`, or go on where it stands, and read it there."""
    report = run / "evaluation" / f"step-{steps}.json"
    if not report.is_file():
        mmtok("train", *words, f"run_dir={run}", f"trainer.max_steps={steps}")
        mmtok("evaluate", str(run), *evaluation, "--out", str(report))
    return json.loads(report.read_text())


def seconds_per_step(run: Path) -> float:
    """Median over the log of the run."""
    with (run / "metrics.csv").open() as file:
        values = [float(row["speed/step_seconds"]) for row in csv.DictReader(file) if row.get("speed/step_seconds")]
    return statistics.median(values)


def curves(out: Path, styles: dict[str, dict[str, Any]], metrics: list[str], title: str) -> None:
    """Validation metrics over the runs, one panel each; `curves.png` in the folder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(metrics), figsize=(8 if len(metrics) == 1 else 5 * len(metrics), 5))
    for metric, axes in zip(metrics, [panels] if len(metrics) == 1 else panels, strict=True):
        for name, style in styles.items():
            with (out / name / "metrics.csv").open() as file:
                points = [
                    (int(r["step"]), float(r[f"val/{metric}"])) for r in csv.DictReader(file) if r[f"val/{metric}"]
                ]
            axes.plot(*zip(*points, strict=True), label=name, marker=".", **style)
        axes.set(xlabel="updates", ylabel=f"validation {metric}")
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    axes.legend(ncols=2)
    figure.savefig(out / "curves.png", dpi=110, bbox_inches="tight")
