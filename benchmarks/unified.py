"""One tokenizer to read and to predict: what meaning costs in fidelity, and what it brings to readers.

    python -m benchmarks.unified image DATA [--out FOLDER] [--weights 0,0.1,1] [--steps 600] [--picture FILE]
    python -m benchmarks.unified audio DATA

DATA holds the sets `train` and `val` (or `test`) with a teacher's features, as `mmtok shards features` writes them:
CIFAR-10 with efflite0, spoken digits with mfcc. The unified recipe of the modality is trained at each weight of
meaning and measured by `mmtok compare`; goes on where it was stopped, and prints its tables from what stands.
`docs/reference/unified.md` holds them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.tables import table
from mmtok.compare.arms import Arm
from mmtok.compare.axes import axis_of
from mmtok.compare.jobs import run_cells
from mmtok.compare.plan import Comparison
from mmtok.compare.preflight import check
from mmtok.compare.results import Results, gather, tables, write
from mmtok.report.numbers import number

READ = ("linear_accuracy", "transformer_accuracy", "neighbour_accuracy")
"""What meaning should bring."""


class Setting(NamedTuple):
    """The measurement of a modality."""

    recipe: str
    settings: tuple[str, ...]
    steps: int
    fidelity: tuple[str, ...]
    """What meaning may cost; the first one is drawn."""
    ask: dict[str, object]


SETTINGS = {
    "image": Setting(
        "image/unified_cifar", (), 600, ("psnr", "LPIPS-alex"),
        {"reconstruction.features": "none", "prior.steps": 100, "prior.batch": 8, "prior.samples": 5000,
         "prior.held_out": 200, "probe.samples": 5000, "probe.held_out": 1000, "probe.steps": 200},
    ),
    "audio": Setting(
        "audio/unified_digits", (), 900, ("si_sdr", "mel"),
        {"reconstruction.judged": 0, "reconstruction.samples": 500, "prior.steps": 150, "prior.batch": 16,
         "prior.most": 256, "prior.samples": 2500, "prior.held_out": 500, "probe.samples": 2500, "probe.held_out": 500,
         "probe.steps": 300},
    ),
}  # fmt: skip


def planned(modality: str, data: Path, out: Path, weights: Sequence[str], steps: int, seeds: int) -> Comparison:
    """An arm a weight, on the recipe of the modality."""
    setting = SETTINGS[modality]
    held_out = next((split for split in ("val", "test") if (data / split).is_dir()), "val")
    words = [
        f"data.shards={data / 'train'}", f"data.val_shards={data / held_out}", f"trainer.max_steps={steps}",
        f"checkpoint.every_steps={steps}", "trainer.val_every=0", *setting.settings,
    ]  # fmt: skip
    arms = [Arm(f"weight={weight}", (f"loss.meaning.weight={weight}",)) for weight in weights]
    measures = ("reconstruction", "prior", "probe")
    return Comparison.make(
        out, [setting.recipe, "logger/quiet"], words, arms, seeds=seeds, measures=measures, options=setting.ask
    )


def means(results: Results, figure: str) -> dict[str, float]:
    """Arm -> mean over its seeds, signed so that more is better."""
    axis = axis_of(figure)
    sign = -1 if axis is not None and axis.higher is False else 1
    return {arm: sign * one.mean for arm, one in results.means.get(figure, {}).items()}


def dominated(fidelity: Mapping[str, float], read: Mapping[str, float]) -> dict[str, list[str]]:
    """Arm -> arms that are no worse in both and better in one."""
    points = {arm: (fidelity[arm], read[arm]) for arm in fidelity if arm in read}
    return {
        arm: [
            other
            for other, (f, r) in points.items()
            if f >= own[0] and r >= own[1] and (f, r) != own
        ]
        for arm, own in points.items()
    }  # fmt: skip


def verdicts(results: Results, fidelity: Sequence[str]) -> str:
    """For each pair of figures: who is dominated, and whether an arm stands that neither end dominates."""
    ends = {results.arms[0], results.arms[-1]}
    rows: list[list[object]] = []
    for one in fidelity:
        for other in READ:
            found = dominated(means(results, one), means(results, other))
            if not found:
                continue
            beaten = [f"{arm} by {', '.join(by)}" for arm, by in found.items() if by]
            between = [arm for arm, by in found.items() if arm not in ends and not ends & set(by)]
            rows.append([f"{one}, {other}", "; ".join(beaten) or "none", ", ".join(between) or "none"])
    return table(["by means", "dominated", "between the ends, and dominated by neither"], rows)


def spreads(results: Results, figures: Sequence[str]) -> str:
    """A row an arm: mean over seeds, and how far they lie apart."""
    rows: list[list[object]] = []
    for arm in results.arms:
        cells: list[object] = [arm]
        for figure in figures:
            values = [row["figures"][figure] for row in results.rows if row["arm"] == arm and figure in row["figures"]]
            apart = f" ({number(max(values) - min(values))})" if len(values) > 1 else ""
            cells.append(f"{number(fmean(values))}{apart}" if values else "-")
        rows.append(cells)
    return table(["mean (largest less smallest seed)", *figures], rows)


def draw(results: Results, fidelity: str, path: Path) -> None:
    """Fidelity against each reader: a point a seed, a line through the means, chance and the input's own in grey."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(READ), figsize=(4 * len(READ), 3.6), layout="constrained", sharex=True)
    for axes, read in zip(panels, READ, strict=True):
        centres = [(results.means[fidelity][arm].mean, results.means[read][arm].mean) for arm in results.arms]
        axes.plot(*zip(*centres, strict=True), color="0.8", zorder=0)
        for arm in results.arms:
            rows = [row["figures"] for row in results.rows if row["arm"] == arm]
            axes.scatter([row[fidelity] for row in rows], [row[read] for row in rows], label=arm)
        raw = results.means.get(f"raw_{read}")
        if raw:
            axes.axhline(fmean(one.mean for one in raw.values()), color="0.6", linestyle=":")
        axes.set(xlabel=f"{fidelity}, held out", title=read)
    panels[0].set_ylabel("accuracy, held out (dotted: of the input itself)")
    panels[-1].legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modality", choices=SETTINGS)
    parser.add_argument("data", type=Path, help="folder of train and val, with the teacher's features")
    parser.add_argument("--out", type=Path, help="folder of the comparison (default: runs/unified/MODALITY)")
    parser.add_argument("--weights", default="0,0.1,1", help="of meaning; the first and the last are the ends")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--picture", type=Path, help="where fidelity is drawn against the readers")
    args = parser.parse_args()
    setting = SETTINGS[args.modality]
    out = (args.out or Path("runs/unified") / args.modality).absolute()
    weights, steps = args.weights.split(","), args.steps or setting.steps
    comparison = planned(args.modality, args.data.absolute(), out, weights, steps, args.seeds)
    if todo := comparison.todo():
        check(comparison)
        comparison.save()
        run_cells(todo, 1)
    results = gather(Comparison.open(out))
    print(f"{tables(results)}\n\nwrote {write(comparison, results)}\n")
    print(spreads(results, [*setting.fidelity, *READ, "prior_bits_per_sample"]))
    print(f"\n{verdicts(results, setting.fidelity)}")
    if args.picture is not None:
        draw(results, setting.fidelity[0], args.picture)


if __name__ == "__main__":
    main()
