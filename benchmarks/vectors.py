"""Tokenizers of vectors on one corpus: how far codes are names, what they know of neighbours, what they cost.

    python -m benchmarks.vectors DATA [--out runs/vectors] [--only rqvae,pq] [--steps 2500] [--picture FILE]

DATA holds the sets `train` and `val` of one build. Each arm is a shipped recipe, trained or fitted on `train` and
measured on both sets; its collisions are counted once more after Sinkhorn's re-assignment of the last level. Goes on
where it was interrupted. `docs/reference/vectors.md` holds the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tables import table
from datamodules.shards import ShardSet
from datamodules.vectoritem import read_items
from mmtok.corpus import Corpus
from mmtok.evaluation.vector_metrics import collisions, equal_rows

ARMS = ("rqvae", "rkmeans", "pq", "fsq")
TRAINED = ("rqvae", "fsq")
PARTED = ("rqvae", "rkmeans", "pq")
"""Those whose last level has few enough codes to spread items over."""
QUICK = ("hardware/cpu", "logger/tensorboard_off", "data.workers=2")


def cpu_seconds(words: list[str]) -> float:
    """Run `mmtok` with one thread a process; what it took of all cores."""
    before = os.times()
    done = subprocess.run(
        [sys.executable, "-m", "mmtok", *words], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    if done.returncode:
        raise SystemExit(f"mmtok {' '.join(words)} failed.")
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def arm(name: str, data: Path, out: Path, steps: int) -> dict[str, Any]:
    """Train, measure, settle; each part once."""
    ledger = out / f"{name}.json"
    known: dict[str, Any] = json.loads(ledger.read_text()) if ledger.is_file() else {}
    run, report, corpus = out / name, out / name / "evaluation" / "corpus.json", out / f"{name}-sinkhorn"
    schedule = [*QUICK, f"trainer.max_steps={steps}", f"trainer.val_every={steps}"] if name in TRAINED else []
    parts = {
        "train": ["train", f"vector/{name}", *schedule, f"data.shards={data / 'train'}", f"run_dir={run}"],
        "evaluate": ["evaluate", str(run), "--out", str(report)],
    }
    if name in PARTED:
        items = f"{data / 'train'},{data / 'val'}"
        parts["settle"] = ["export", str(run), str(corpus), "--items", items, "--collisions", "sinkhorn", "--overwrite"]
    for part, words in parts.items():
        if part not in known:
            known[part] = cpu_seconds(words)
            ledger.write_text(json.dumps(known) + "\n")
    found = json.loads(report.read_text())
    if name in PARTED:
        found["after"] = after_sinkhorn(data, Corpus.load(corpus))
    return found | {"seconds": sum(known.values())}


def after_sinkhorn(data: Path, corpus: Corpus) -> float:
    """Collisions beyond equal vectors of a settled corpus."""
    sets = [ShardSet.open(str(data / split)) for split in ("train", "val")]
    x = torch.from_numpy(np.stack([item.vector for one in sets for item in read_items(one)]))
    return collisions(corpus.ids, corpus.sizes, equal_rows(x)).beyond


def show(found: dict[str, dict[str, Any]]) -> None:
    """A row an arm, the random codes of the first one's sizes, and the hierarchy."""
    header = [
        "", "slots an item", "collide", "beyond equal vectors", "after Sinkhorn", "largest group", "use of each level",
        "mse", "10-NN recall", "CPU min",
    ]  # fmt: skip
    rows: list[list[object]] = []
    for name, one in found.items():
        use = " ".join(f"{level['active']:.1%}" for level in one["usage"])
        rows.append([name, *figures(one["metrics"], one.get("after"), use), f"{one['seconds'] / 60:.1f}"])
    drawn = next(iter(found.values()))["choices"]["random"]
    rows.append(["random", *figures(drawn, None, " ".join(f"{share:.1%}" for share in drawn["active"])), "-"])
    print(table(header, rows))
    print()
    lines: list[list[object]] = []
    for name, one in found.items():
        beside = {row["prefix"]: row for row in one["choices"]["shuffled"]["coherence"]}
        for row in one["choices"]["coherence"]:
            other = beside.get(row["prefix"], {})
            cells = [f"{of.get(key, float('nan')):.3f}" for key in ("cosine", "purity") for of in (row, other)]
            lines.append([name, int(row["prefix"]), *cells])
    print(table(["", "shared codes", "cosine", "shuffled", "same section", "shuffled"], lines))


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Cosines of pairs by their shared codes, a line an arm, and the shuffled codes of all in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for name, one in found.items():
        for of, style in ((one["choices"], {"label": name, "marker": "o"}),
                          (one["choices"]["shuffled"], {"color": "0.7", "zorder": 0})):  # fmt: skip
            rows = of["coherence"]
            axes.plot([row["prefix"] for row in rows], [row["cosine"] for row in rows], **style)
    axes.set(xlabel="first codes shared", ylabel="mean cosine of pairs", title="grey: the same codes, shuffled")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def figures(m: dict[str, float], after: float | None, use: str) -> list[object]:
    """The cells of a tokenizer."""
    return [
        f"{m['slots_per_item']:,.0f}", f"{m['collision_rate']:.2%}", f"{m['collisions_beyond_duplicates']:.2%}",
        "-" if after is None else f"{after:.2%}", f"{m['max_group']:.0f}", use, f"{m['mse']:.3f}",
        f"{m['knn_recall']:.1%}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/vectors"))
    parser.add_argument("--only", default=",".join(ARMS))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--picture", type=Path, help="where the hierarchy is drawn")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = {name: arm(name, args.data, args.out, args.steps) for name in args.only.split(",")}
    show(found)
    if args.picture is not None:
        draw(found, args.picture)


if __name__ == "__main__":
    main()
