"""Does a run that is killed again and again end as one that is not? By named places and by signals at random times.

    python -m benchmarks.kills [--case gan|audio|text|vector|row|unified] [--out runs/kills] [--only 1x0,2x2] [--seed 0]

On CPUs, for 1 and 2 ranks and 0 and 2 loader workers: a tiny VQ-GAN with an EMA codebook on the committed fixture, an
adversarial codec with `split` codes and a teacher, on tones, `rq` codes of texts or of vectors, or of the fixture a row
of tokens under nested dropout, or `pq` codes with a teacher's features. Every kill falls in an update that the run had
not reached before. Goes on where it was interrupted. Prints a row a setting, and how the
kills are spread; `docs/reference/resume.md` holds both.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks import ddp
from benchmarks.faults import ADVERSARIAL, FIRST_RANK, POINTS
from benchmarks.lives import STOPPED, Life
from benchmarks.tables import table
from mmtok.loading import read_checkpoint

CASES = {"gan": "gan", "audio": "audio", "text": "text", "vector": "vector", "row": "nested", "unified": "unified"}
"""What is trained, as in `benchmarks/ddp.py`."""
SETTINGS = ((1, 0), (1, 2), (2, 0), (2, 2))
"""Ranks and loader workers of each."""
SIGNALS = ("SIGKILL", "SIGTERM", "SIGKILL", "SIGUSR1")
STEPS = 83


def settings(
    out: Path, name: str, world: int, workers: int, steps: int = STEPS, *, case: str = "gan"
) -> dict[str, Any]:
    """A run whose validations, checkpoints, rows and windows fall on different updates."""
    run = ddp.tree(CASES[case], world, out, steps) | {"run_dir": str(out / name), "deterministic": True}
    if case == "audio":
        # Draws of several crops from one clip, and again where a place is too quiet; clips without any are made up for.
        run["data"] |= {"crops": 2, "min_loudness": -18.0, "max_bad_fraction": 0.2}
    elif case == "text":
        run["quantizer"] = ddp.RQ | {"init": "kmeans", "restart": 0.3}
    elif case != "row":  # whose transformer has none
        run["tokenizer"]["encoder"] |= {"dropout": 0.1}
    run["data"] |= {"workers": workers}
    run["trainer"] |= {"val_every": 7, "agree_every": 3}
    run["checkpoint"] |= {"every_steps": 4, "keep": 1}
    run["log"] |= {"every_steps": 5, "usage_every_steps": 9, "media_every_steps": 50}
    return run


def run_setting(out: Path, world: int, workers: int, seed: int, case: str = "gan") -> dict[str, Any]:
    """Train once straight and once through all kills; returns what `compare` found, and the kills."""
    name = f"{case}-{world}x{workers}"
    straight, killed = (settings(out, run, world, workers, case=case) for run in (f"{name}-straight", name))
    began = time.monotonic()
    if not (out / f"{name}-straight-rank0.log").exists():
        ended = Life(straight, 0).end()
        assert not any(ended.values()), f"the uninterrupted run failed, see {out}/{name}-straight-rank0.txt"
    ledger = out / f"{name}-kills.jsonl"
    kills = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    draws = random.Random(f"{seed} {world}x{workers}")
    plan = [*(point for point in POINTS if killed["adversary"] or point not in ADVERSARIAL), *SIGNALS]
    draws.shuffle(plan)
    for number, kind in enumerate(plan):
        rank = 0 if kind in FIRST_RANK else draws.randrange(world)
        ahead, delay = draws.randint(1, 4), draws.random() * 0.2
        if number < len(kills):
            continue
        kill = one_kill(killed, kind, rank, ahead, delay)
        kills.append(kill)
        with ledger.open("a") as file:
            file.write(json.dumps(kill) + "\n")
        print(f"{name}: {kill}", flush=True)
    ended = Life(killed, lives(killed)).end()
    assert not any(ended.values()), f"the run failed after its kills, see {out}/{name}-rank0.txt"
    return compare(out, name) | {"kills": kills, "seconds": time.monotonic() - began}


def one_kill(run: Mapping[str, Any], kind: str, rank: int, ahead: int, delay: float) -> dict[str, Any]:
    """Start the run, let it come further than ever before, and kill it there."""
    log, number = Path(f"{run['run_dir']}-rank{rank}.log"), lives(run)
    before = furthest(run)
    at = before + ahead
    if kind in POINTS:
        life = Life(run, number, kind, at, rank)
    else:
        life = Life(run, number)
        if life.reached(rank, at):
            time.sleep(delay)
            life.signal(rank, kind)
    ended = life.end()
    mine = [step for life, step, _ in entries(log) if life == number]
    expected = {"SIGTERM": (STOPPED,), "SIGUSR1": (STOPPED,), "loader": (-9, 70)}.get(kind, (-9,))
    assert ended[rank] in expected, (
        f"{kind} at {at}: rank {rank} ended with {ended[rank]}, see {run['run_dir']}-rank*.txt"
    )
    assert max(mine, default=-1) > before, f"{kind} fell before the run was further than {before}"
    return {
        "kind": kind,
        "rank": rank,
        "from": mine[0],
        "before": before,
        "to": mine[-1],
        "ended": list(ended.values()),
    }


def lives(run: Mapping[str, Any]) -> int:
    """Starts so far that came to a batch."""
    return max((life for life, _, _ in entries(Path(f"{run['run_dir']}-rank0.log"))), default=-1) + 1


def furthest(run: Mapping[str, Any]) -> int:
    """The last update that any start so far came to; -1 before the first."""
    return max((step for _, step, _ in entries(Path(f"{run['run_dir']}-rank0.log"))), default=-1)


def entries(log: Path) -> Iterator[tuple[int, int, str]]:
    """(life, update, samples) of each batch a rank saw; nothing where there is no log yet."""
    for line in log.read_text().splitlines() if log.exists() else []:
        life, step, samples = line.split(" ", 2)
        yield int(life), int(step), samples


def timeline(log: Path) -> tuple[list[str], int]:
    """The batches that made the final weights, in order, and how many updates were trained more than once.

    A life goes on from the update its first batch is of: what came after it in the life before is gone with that life's
    weights.
    """
    kept: list[str] = []
    again, last = 0, -1
    for life, step, samples in entries(log):
        if life != last:
            assert step <= len(kept), f"{log.name}: life {life} begins at {step}, after a gap"
            again += len(kept) - step
            del kept[step:]
            last = life
        assert step == len(kept), f"{log.name}: {step} follows {len(kept) - 1}"
        kept.append(samples)
    return kept, again


def compare(out: Path, name: str) -> dict[str, Any]:
    """What differs between the two runs."""
    one, other = (
        dict(tensors(read_checkpoint(out / run / "checkpoints" / "last.ckpt"))) for run in (f"{name}-straight", name)
    )
    assert one.keys() == other.keys()
    apart = [key for key, value in one.items() if not torch.equal(value, other[key])]
    first, second = rows(out / f"{name}-straight"), rows(out / name)
    lost = repeated = 0
    for log in sorted(out.glob(f"{name}-rank*.log")):
        straight, _ = timeline(out / log.name.replace(name, f"{name}-straight"))
        kept, again = timeline(log)
        lost += len(Counter(straight) - Counter(kept)) + (kept != straight)
        repeated += len(Counter(kept) - Counter(straight))
    return {
        "tensors": len(one), "differ": apart, "rows": len(first),
        "rows_differ": [mine["step"] for mine, theirs in zip(first, second, strict=False) if mine != theirs]
        + ["number of rows"] * (len(first) != len(second)),
        "batches": len(kept), "lost": lost, "repeated": repeated, "again": again,
    }  # fmt: skip


def tensors(tree: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor and number of a checkpoint by its place, but Lightning's counts of hooks that have run."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, (int, float)):
        yield path, torch.tensor(tree)
    elif isinstance(tree, (Mapping, list, tuple)):
        items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
        for key, value in items:
            if not (path == "" and key == "loops"):
                yield from tensors(value, f"{path}/{key}")


def rows(run_dir: Path) -> list[dict[str, str]]:
    """Rows of metrics.csv, without what the clock says."""
    with (run_dir / "metrics.csv").open() as file:
        return [
            {key: value for key, value in row.items() if not key.startswith("speed/")} for row in csv.DictReader(file)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="gan", help="what is trained")
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--only", help="comma-separated settings, ranks x workers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wanted = [pair for pair in SETTINGS if not args.only or f"{pair[0]}x{pair[1]}" in args.only.split(",")]
    prepare(args.out)
    found = {pair: run_setting(args.out, *pair, args.seed, args.case) for pair in wanted}
    lines = [
        [
            world, workers, len(one["kills"]), one["again"], f"{len(one['differ'])} of {one['tensors']:,}",
            f"{len(one['rows_differ'])} of {one['rows']}", one["lost"], one["repeated"], f"{one['seconds']:.0f}",
        ]
        for (world, workers), one in found.items()
    ]  # fmt: skip
    head = ["ranks", "workers", "kills", "updates trained again", "tensors and numbers that differ", "rows that differ"]
    print(table([*head, "batches lost", "batches repeated", "seconds"], lines))
    kinds = Counter(kill["kind"] for one in found.values() for kill in one["kills"])
    print()
    print(table(["killed by or at", "times"], [[kind, kinds[kind]] for kind in (*POINTS, *dict.fromkeys(SIGNALS))]))


def prepare(out: Path) -> None:
    """The shards, and one thread: what is forked must not have started more."""
    torch.set_num_threads(1)
    ddp.prepare(out)


if __name__ == "__main__":
    main()
