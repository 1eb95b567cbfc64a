"""Do codes that share a prefix name things that are near each other in WordNet, beside shuffled codes and chance?

    mmtok shards build debian:wordnet --vectors tfidf -o data/wordnet
    python -m benchmarks.wordnet --shards data/wordnet [--rows rkmeans,rqvae] [--seeds 3] [--steps 600]

Each row is a recipe, trained or fitted on the glosses of the set `train`, in a process of its own; then all glosses,
held-out ones too, are coded, and pairs are drawn of those that share their first l codes. Distances are steps in the
hypernym tree (`mmtok.evaluation.hierarchy`). The codes were made of words alone: no tokenizer saw the tree. A second
call goes on where the first stopped; the table and the figure are made of what stands in the output folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.runs import mmtok
from benchmarks.tables import table
from datamodules.shards import ShardSet
from datamodules.vectoritem import Item, read_items
from mmtok.compare.statistics import mean_of
from mmtok.evaluation.hierarchy import Tree, judge
from mmtok.evaluation.vector_metrics import equal_rows
from mmtok.loading import load

ROWS = {"rkmeans": ["data.sample_items=20000"], "rqvae": ["trainer.max_steps={steps}", "trainer.val_every={steps}"]}
"""Recipe of vectors -> what it is given besides: enough for this, in a minute or two of a core."""
BATCH = 4096
MEASURES = {"distance": "steps between them", "wu_palmer": "Wu-Palmer similarity"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=Path, required=True, help="sets of WordNet, with hypernyms.csv beside them")
    parser.add_argument("--out", type=Path, default=Path("runs/wordnet"))
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them (default: all)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600, help="updates of what is trained")
    parser.add_argument("--pairs", type=int, default=20_000, help="drawn at each prefix")
    args = parser.parse_args()
    rows = args.rows.split(",")
    for seed in range(args.seeds):
        for name in rows:
            if not (args.out / f"{name}-{seed}.json").is_file():
                measure(args, name, seed)
    found = {name: [json.loads(path.read_text()) for path in sorted(args.out.glob(f"{name}-*.json"))] for name in ROWS}
    found = {name: runs for name, runs in found.items() if runs}
    text = as_table(found)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    draw(found, args.out / "wordnet.png")


def measure(args: argparse.Namespace, name: str, seed: int) -> None:
    """Train or fit a row, code all glosses, and let the tree judge."""
    run = args.out / f"{name}-{seed}"
    words = [f"vector/{name}", f"data.shards={args.shards / 'train'}", f"seed={seed}", f"run_dir={run}"]
    mmtok("train", *words, *(setting.format(steps=args.steps) for setting in ROWS[name]))
    items = [one for split in ("train", "val") for one in read_items(ShardSet.open(args.shards / split))]
    x = torch.from_numpy(np.stack([one.vector for one in items]))
    # Equal vectors have equal codes whatever the tokenizer: one of them is enough.
    first = np.unique(equal_rows(x), return_index=True)[1]
    ids, kept = encoded(run, x[torch.from_numpy(first)]), [items[i] for i in first]
    result = judged(Tree.load(args.shards / "hypernyms.csv"), kept, ids, args.pairs, seed)
    (args.out / f"{name}-{seed}.json").write_text(json.dumps(result, indent=1) + "\n")


def encoded(run: Path, x: torch.Tensor) -> np.ndarray:
    """(N, F) -> (N, L) codes."""
    tokenizer = load(run)
    with torch.no_grad():
        return np.concatenate([tokenizer.encode(rows).ids[:, :, 0].numpy() for rows in x.split(BATCH)])


def judged(tree: Tree, items: list[Item], ids: np.ndarray, pairs: int, seed: int) -> dict[str, Any]:
    """Rows of the codes, and of the same codes given to other items."""
    keys = [one.key for one in items]
    shuffled = np.random.default_rng(seed).permutation(ids)

    def of(codes: np.ndarray) -> list[dict[str, float]]:
        return [row._asdict() for row in judge(tree, keys, codes, pairs=pairs, seed=seed)]

    used = [float(len(np.unique(level)) / (level.max() + 1)) for level in ids.T]
    return {"items": len(items), "used": used, "codes": of(ids), "shuffled": of(shuffled)}


def as_table(found: dict[str, list[dict[str, Any]]]) -> str:
    """A row a recipe and prefix, with 95 % intervals."""
    header = [
        "codes",
        "seeds",
        "shared",
        "steps",
        "steps, shuffled",
        "Wu-Palmer",
        "Wu-Palmer, shuffled",
        "items with company",
    ]
    lines = []
    for name, runs in found.items():
        for prefix in range(len(runs[0]["codes"])):
            cells = [of(runs, side, prefix, measure) for measure in MEASURES for side in ("codes", "shuffled")]
            company = np.mean([run["codes"][prefix]["items"] / run["items"] for run in runs])
            lines.append([name, len(runs), prefix, *cells, f"{company:.0%}"])
    return table(header, lines)


def of(runs: list[dict[str, Any]], side: str, prefix: int, measure: str) -> str:
    """One cell."""
    rows = [run[side][prefix] for run in runs if prefix < len(run[side])]
    return "{:.3f} ± {:.3f}".format(*averaged(rows, measure)) if rows else "-"


def averaged(rows: list[dict[str, float]], measure: str) -> tuple[float, float]:
    """Mean and half a 95 % interval: over seeds, or over the pairs where there is one seed."""
    mean = mean_of([row[measure] for row in rows])
    return mean.mean, rows[0][f"{measure}_half"] if mean.half is None else mean.half


def draw(found: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Both measures against the length of the shared prefix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(MEASURES), figsize=(9, 3.6))
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
        for number, (name, runs) in enumerate(found.items()):
            for side, style in (("codes", "-"), ("shuffled", ":")):
                shared = range(min(len(run[side]) for run in runs))
                means, halves = zip(*(averaged([run[side][i] for run in runs], measure) for i in shared), strict=True)
                axes.errorbar(
                    shared, means, halves, fmt=style, marker="o", markersize=4, capsize=3,
                    color=f"C{number}", label=name if side == "codes" else f"{name}, shuffled",
                )  # fmt: skip
        axes.set(xlabel="codes that a pair shares", ylabel=label)
        axes.set_xticks(range(max(len(run["codes"]) for runs in found.values() for run in runs)))
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
