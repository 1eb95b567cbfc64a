"""One training for all lengths beside one training a length, and lengths that follow the item beside one for all.

    python -m benchmarks.adaptive pictures TRAIN HELD_OUT [--steps 1200] [--out runs/adaptive] [--draw FOLDER]
    python -m benchmarks.adaptive sounds TRAIN HELD_OUT

`pictures` cuts `image/row_cifar` along its row of tokens, `sounds` cuts `audio/demo` along its levels; the arms besides
it are the same recipe at a fixed length. All are trained for the same updates and measured on the same items. Trainings
go on where they were interrupted. `docs/reference/adaptive.md` holds the tables.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.tables import table
from mmtok.cli.subject import subject_of
from mmtok.evaluation.density import packed_size, rank_correlation
from mmtok.evaluation.heldout import HeldOut
from mmtok.evaluation.lengths import unpadded
from mmtok.tokenizers.axis import cut
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.budget import Quality
from mmtok.tokenizers.fidelity import counting, fidelity_of

QUIET = ("hardware/cpu", "logger/tensorboard_off", "trainer.val_every=0", "checkpoint.every_steps=200")


class Family(NamedTuple):
    """One recipe trained for any length, and for each of some."""

    recipe: str
    steps: int
    settings: tuple[str, ...]
    fixed: dict[int, tuple[str, ...]]
    """Length -> the settings of its own training."""
    lengths: tuple[int, ...]
    """At which the nested one is read."""
    targets: tuple[float, ...]
    """dB."""
    measure: str
    """Its name, as `fidelity_of` has it."""


FAMILIES = {
    "pictures": Family(
        "image/row_cifar",
        1200,
        (),
        {n: ("tokenizer.nested=none", f"tokenizer.encoder.queries={n}") for n in (8, 16, 32, 64)},
        (1, 2, 4, 8, 16, 24, 32, 48, 64),
        (15, 16, 17, 18, 19),
        "psnr",
    ),
    "sounds": Family(
        "audio/demo",
        400,
        ("optim.schedule=constant", "quantizer.depth=8"),
        {n: (f"quantizer.depth={n}", "quantizer.dropout=0") for n in (1, 2, 4, 8)},
        (1, 2, 3, 4, 5, 6, 7, 8),
        (2, 3, 4, 5, 6),
        "snr",
    ),
}


def trained(family: Family, name: str, own: Sequence[str], args: argparse.Namespace) -> Path:
    """The run of an arm, trained once; its figures are of one set.

    Raises:
        SystemExit: what stands there was asked for otherwise.
    """
    run: Path = args.out / args.family / name
    done, steps = run / "trained.json", args.steps or family.steps
    asked = {"steps": steps, "train": str(args.train), "held_out": str(args.held_out)}
    if done.is_file():
        if different := [key for key, value in asked.items() if json.loads(done.read_text()).get(key) != value]:
            raise SystemExit(f"{run} stands for other {' and '.join(different)}. Give another --out, or remove it.")
        return run
    words = ["train", family.recipe, *QUIET, *family.settings, *own, f"trainer.max_steps={steps}"]
    words += [f"data.shards={args.train}", f"data.val_shards={args.held_out}", f"run_dir={run}"]
    before = os.times()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if subprocess.run([sys.executable, "-m", "mmtok", *words], env=environment, check=False).returncode:
        raise SystemExit(f"mmtok {' '.join(words)} failed.")
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    done.write_text(json.dumps(asked | {"cpu_seconds": spent}) + "\n")
    return run


def opened(run: Path, args: argparse.Namespace) -> tuple[Tokenizer, list[Tensor]]:
    """A run's tokenizer and the held-out signals."""
    subject = subject_of(argparse.Namespace(run=run, raw=False, shards=str(args.held_out)))
    return subject.tokenizer, list(
        unpadded(HeldOut(subject.data, shards=str(args.held_out), samples=args.samples), "cpu")
    )


def qualities(tokenizer: Tokenizer, signals: Sequence[Tensor], length: int | None) -> Tensor:
    """dB of every item at a length; None is all of the code."""
    figure, _ = fidelity_of(tokenizer.spec.modality)
    figures = []
    with evaluating(tokenizer), torch.inference_mode():
        for x in signals:
            latents = tokenizer.embed(x)
            codes = tokenizer.code(latents) if length is None else cut(tokenizer, latents, length)
            y = tokenizer.decode(codes)
            figures.append(figure(x, y, counting(latents.source_size, x)))
    return torch.cat(figures)


def searched(tokenizer: Tokenizer, signals: Sequence[Tensor], measure: str, target: float) -> dict[str, Any]:
    """What a wanted quality takes, item by item, and what looking for it does."""
    quality = Quality(**{measure: target})
    with evaluating(tokenizer), torch.inference_mode():
        start = time.process_time()
        found = [quality.search(tokenizer, x, tokenizer.embed(x)) for x in signals]
        spent = time.process_time() - start
        start = time.process_time()
        for x in signals:
            tokenizer.encode(x)
        plain = time.process_time() - start
    columns = {name: torch.cat([getattr(one, name) for one in found]) for name in ("kept", "met", "crossed")}
    decodes = sum(one.decodes for one in found) / len(found)
    return {name: column.tolist() for name, column in columns.items()} | {"decodes": decodes, "times": spent / plain}


def read(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of an arm, item by item, from its file where it is there."""
    family = FAMILIES[args.family]
    run = trained(family, name, () if name == "nested" else family.fixed[int(name)], args)
    file = run / f"lengths-{args.samples}.json"
    if file.is_file():
        known: dict[str, Any] = json.loads(file.read_text())
        return known
    tokenizer, signals = opened(run, args)
    found: dict[str, Any] = json.loads((run / "trained.json").read_text())
    if name == "nested":
        found["quality"] = {n: qualities(tokenizer, signals, n).tolist() for n in family.lengths}
        found["searched"] = {
            f"{target:g}": searched(tokenizer, signals, family.measure, target) for target in family.targets
        }
        rate = tokenizer.spec.sample_rate
        found["bytes"] = [packed_size(one, rate) for x in signals for one in x]
        found["samples"] = [x.shape[2:].numel() for x in signals for _ in x]
    else:
        found["quality"] = {int(name): qualities(tokenizer, signals, None).tolist()}
    file.write_text(json.dumps(found) + "\n")
    return json.loads(json.dumps(found))  # keys as a file has them


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def share(values: Sequence[float], target: float) -> float:
    """Of the items, those within the target."""
    return mean([value >= target for value in values])


def show(family: Family, arms: dict[str, dict[str, Any]]) -> None:
    """Both tables: what a length is worth, and what a quality takes."""
    nested, unit = arms["nested"], family.measure
    rows: list[list[object]] = []
    for n in map(str, family.lengths):
        own = mean(arms[n]["quality"][n]) if n in arms else None
        here = mean(nested["quality"][n])
        minutes = f"{arms[n]['cpu_seconds'] / 60:.1f}" if n in arms else ""
        apart = [f"{own:.2f}", f"{here - own:+.2f}"] if own is not None else ["", ""]
        rows.append([n, f"{here:.2f}", *apart, minutes])
    print(table(["length", f"any length, {unit} dB", "trained for this one", "difference", "CPU min of its own"], rows))
    print(f"\nany length: {nested['cpu_seconds'] / 60:.1f} CPU min; {len(nested['bytes']):,} held-out items\n")
    rows = []
    for target, one in nested["searched"].items():
        met, kept = mean(one["met"]), f"{mean(one['kept']):.1f} ({median(one['kept']):.0f})"
        cut = shortest({n: share(q, float(target)) for n, q in nested["quality"].items()}, met)
        own = [f"{share(arms[str(n)]['quality'][str(n)], float(target)):.1%}" for n in family.fixed]
        ranks = rank_correlation(torch.tensor(one["kept"]), torch.tensor(density(nested)))
        rows.append(
            [target, f"{met:.1%}", kept, cut or "-", *own, f"{ranks:.2f}",
             f"{mean(one['crossed']):.1%}", f"{one['decodes']:.1f}", f"{one['times']:.0f}x"]
        )  # fmt: skip
    header = ["dB", "within", "kept, mean (median)", "the same for all",
              *(f"within, {n} of its own training" for n in family.fixed), "rank corr. of length and bytes",
              "crossed", "decodes", "encoding takes"]  # fmt: skip
    print(table(header, rows))


def density(nested: dict[str, Any]) -> list[float]:
    """Bytes of each item as PNG or FLAC, over its samples: long sounds are not dense ones."""
    return [size / count for size, count in zip(nested["bytes"], nested["samples"], strict=True)]


def shortest(shares: dict[str, float], wanted: float) -> str | None:
    """The least length with as large a share."""
    return min((n for n, got in shares.items() if got >= wanted), key=int, default=None)


def draw(family: Family, arms: dict[str, dict[str, Any]], path: Path) -> None:
    """Left: quality by length. Right: the share within each target by length, and where searching each item is."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    nested = arms["nested"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    lengths = list(family.lengths)
    left.plot(lengths, [mean(nested["quality"][str(n)]) for n in lengths], "o-", label="one training, any length")
    fixed = sorted(family.fixed)
    left.plot(fixed, [mean(arms[str(n)]["quality"][str(n)]) for n in fixed], "s", label="a training for each length")
    left.set(xlabel="length", ylabel=f"{family.measure} dB", xscale="log")
    left.legend(frameon=False)
    for index, (target, one) in enumerate(nested["searched"].items()):
        colour = f"C{index}"
        shares = [share(nested["quality"][str(n)], float(target)) for n in lengths]
        right.plot(lengths, shares, color=colour, label=f"{target} dB")
        right.plot(fixed, [share(arms[str(n)]["quality"][str(n)], float(target)) for n in fixed], "s", color=colour)
        right.plot(mean(one["kept"]), mean(one["met"]), "*", color=colour, markersize=13)
    right.set(xlabel="length (stars: mean of those searched)", ylabel="share of items within", xscale="log")
    right.legend(frameon=False, title="target")
    for axes in (left, right):
        axes.set_xticks(lengths, [str(n) for n in lengths], minor=False)
        axes.minorticks_off()
    figure.savefig(path, dpi=110)


def draw_pictures(tokenizer: Tokenizer, x: Tensor, target: float, path: Path) -> None:
    """Columns: pictures at 8, 16, 32 and 64 tokens, as the search leaves them, and as they were."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with evaluating(tokenizer), torch.inference_mode():
        latents = tokenizer.embed(x)
        found = Quality(psnr=target).search(tokenizer, x, latents)
        shown = {str(n): tokenizer.decode(cut(tokenizer, latents, n)) for n in (8, 16, 32, 64)}
        shown |= {f"{target:g} dB": tokenizer.decode(found.codes), "original": x}
    figure, axes = plt.subplots(len(x), len(shown), figsize=(len(shown), len(x) * 1.12), layout="constrained")
    for row, (of, kept) in enumerate(zip(axes, found.kept.tolist(), strict=True)):
        for cell, (title, y) in zip(of, shown.items(), strict=True):
            cell.imshow(((y[row].float().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy())
            cell.set(xticks=[], yticks=[])
            if row == 0:
                cell.set_title(title, fontsize=8)
        of[-2].set_xlabel(f"{kept} tokens", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=list(FAMILIES))
    parser.add_argument("train", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/adaptive"))
    parser.add_argument("--steps", type=int, help="updates of every training")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--fixed", metavar="N,...", help="lengths that get a training of their own (default: all)")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="where pictures go")
    args = parser.parse_args()
    torch.set_num_threads(1)
    family = FAMILIES[args.family]
    if args.fixed:
        family = family._replace(fixed={int(n): family.fixed[int(n)] for n in args.fixed.split(",")})
    arms = {name: read(name, args) for name in ("nested", *map(str, family.fixed))}
    show(family, arms)
    if args.draw is not None:
        draw(family, arms, args.draw / f"adaptive_{args.family}.png")
        if args.family == "pictures":
            tokenizer, signals = opened(args.out / args.family / "nested", args)
            middle = family.targets[len(family.targets) // 2]
            draw_pictures(tokenizer, signals[0][:8], middle, args.draw / "adaptive_examples.png")


if __name__ == "__main__":
    main()
