"""What becomes of a run that is stopped and goes on with other loader workers or on another number of ranks?

    python -m benchmarks.changes [--out runs/changes] [--only 0,3]

Every start but the last of a series is told to stop (SIGTERM) in an update that the run had not reached before. The
whole series is compared with one uninterrupted run on its first setting: global batches as sets of samples with their
augmentation, and the weights. Prints a row a series; `docs/reference/resume.md` holds them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.kills import entries, furthest, lives, one_kill, prepare, settings, tensors
from benchmarks.lives import Life
from benchmarks.tables import table
from mmtok.loading import read_checkpoint

STEPS = 60
SERIES: tuple[tuple[tuple[int, int], ...], ...] = (
    ((1, 0), (1, 2), (1, 1), (1, 0)),
    ((2, 0), (2, 2), (2, 1), (2, 0)),
    ((1, 0), (2, 2), (4, 0), (1, 2)),
    ((1, 0), (3, 0), (2, 2), (3, 1)),
)
"""Ranks and loader workers of each start. There are four streams: 1, 2 and 4 ranks divide them, 3 do not."""


def batches(out: Path, name: str) -> list[list[str]]:
    """The samples of each update that made the final weights, of all ranks together, sorted."""
    kept: list[list[str]] = []
    logs = {log: list(entries(log)) for log in sorted(out.glob(f"{name}-rank*.log"))}
    for life in sorted({life for log in logs.values() for life, _, _ in log}):
        steps: dict[int, list[str]] = {}
        for log in logs.values():
            for other, step, samples in log:
                if other == life:
                    steps.setdefault(step, []).extend(samples.split(" "))
        first = min(steps)
        assert first <= len(kept), f"{name}: start {life} begins at {first}, after a gap"
        kept[first:] = [sorted(steps[step]) for step in sorted(steps)]
    return kept


def run_series(out: Path, number: int) -> dict[str, Any]:
    """Train straight on the first setting, then through the series; returns what differs."""
    series = SERIES[number]
    straight = _run(out, f"{number}-straight", *series[0])
    if not (out / f"{number}-straight" / "checkpoints" / "last.ckpt").exists():
        assert not any(Life(straight, 0).end().values()), f"see {out}/{number}-straight-rank*.txt"
    changed = [_run(out, str(number), *pair) for pair in series]
    for run in changed[lives(changed[0]) : -1]:
        kill = one_kill(run, "SIGTERM", 0, 8, 0.0)
        print(f"{number}: {run['trainer']['devices']}x{run['data']['workers']} {kill}", flush=True)
    assert furthest(changed[0]) < STEPS - 1, "nothing is left for the last start"
    assert not any(Life(changed[-1], lives(changed[0])).end().values()), f"see {out}/{number}-rank*.txt"
    return compare(out, number)


def compare(out: Path, number: int) -> dict[str, Any]:
    """Batches lost and repeated, updates whose batch is another, and how far the weights are apart."""
    expected, got = batches(out, f"{number}-straight"), batches(out, str(number))
    wanted, seen = (Counter(sample for batch in one for sample in batch) for one in (expected, got))
    one, other = (
        dict(tensors(read_checkpoint(out / name / "checkpoints" / "last.ckpt")["state_dict"]))
        for name in (f"{number}-straight", str(number))
    )
    return {
        "lost": (wanted - seen).total(), "repeated": (seen - wanted).total(),
        "other": sum(mine != theirs for mine, theirs in zip(expected, got, strict=True)),
        "differ": sum(not torch.equal(value, other[key]) for key, value in one.items()), "tensors": len(one),
        "apart": max(float((value.double() - other[key].double()).abs().max()) for key, value in one.items()),
    }  # fmt: skip


def _run(out: Path, name: str, world: int, workers: int) -> dict[str, Any]:
    run = settings(out, name, world, workers, STEPS)
    run["data"] |= {"batch_size": 12}
    run["tokenizer"]["encoder"].pop("dropout")  # drawn by each rank for its own items
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/changes"), help="an empty folder")
    parser.add_argument("--only", help="comma-separated numbers of series")
    args = parser.parse_args()
    prepare(args.out)
    lines = []
    for number in [int(word) for word in args.only.split(",")] if args.only else range(len(SERIES)):
        one = run_series(args.out, number)
        named = " -> ".join(f"{world}x{workers}" for world, workers in SERIES[number])
        differ = f"{one['differ']} of {one['tensors']}"
        lines.append([named, STEPS, one["lost"], one["repeated"], one["other"], differ, f"{one['apart']:.1e}"])
    head = [
        "ranks x workers",
        "updates",
        "samples lost",
        "samples repeated",
        "batches that differ",
        "tensors that differ",
    ]
    print(table([*head, "largest difference"], lines))


if __name__ == "__main__":
    main()
