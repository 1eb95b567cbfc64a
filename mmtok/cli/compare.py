"""Compare tokenizers on one recipe: train or gather runs, measure all alike, tell what the intervals separate.

  mmtok compare image/vqvae_cifar data.shards=data/cifar/train --over quantizer=none,10bit/* --seeds 3 -o runs/bits10
  mmtok compare image/vqvae_cifar data.shards=data/cifar/train --over quantizer.codebook_size=256,1024,4096 -o runs/k
  mmtok compare image/vqvae_cifar data.shards=data/cifar/train --with mine=runs/mine -o runs/mine
  mmtok compare runs/bits10                          # the tables of what stands
  mmtok compare image/vqvae_cifar data.shards=data/cifar/train --over quantizer=10bit/* --slurm cpu -o runs/bits10

The same command goes on where it was stopped, does a cell that failed again, and adds what is new. Figures:
DIR/results.json and results.md. "(1-3)" behind a figure are the places an arm may have: 95 % intervals of the
differences say no more.

  mmtok compare --study survey --data cifar=data/cifar/train --data digits=data/fsdd/train -o runs/survey --jobs 2
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmtok.schema import ConfigError

if TYPE_CHECKING:
    from mmtok.compare.plan import Comparison

MEASURES = "reconstruction,prior,probe,cost"
"""What is measured unless told otherwise."""
CLUSTER = "cluster."
"""Prefix of settings that are the cluster's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "layers", nargs="*", metavar="RECIPE|KEY=VALUE|DIR", help="recipe and settings of all arms, or a comparison"
    )
    parser.add_argument(
        "--over", action="append", default=[], metavar="GROUP=A,B|KEY=A,B",
        help="what the arms differ in: layers (quantizer=none,10bit/*) or values of a setting; all combinations",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="standing", action="append", default=[], metavar="NAME=PATH",
        help="a tokenizer that stands: a run, bundle, import, or package.module:function; several of a name are seeds",
    )  # fmt: skip
    parser.add_argument(
        "--study", metavar="NAME|FILE", help="one of configs/study: several comparisons with their questions"
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=SHARDS",
        help="of a study: the shard set that it calls NAME",
    )
    parser.add_argument(
        "--seeds", type=int, help="runs of each arm (default 1, which ranks nothing; a study's its own)"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder of the comparison")
    parser.add_argument("--measures", metavar="A,B", help=f"which (default: {MEASURES})")
    parser.add_argument(
        "--ask",
        action="append",
        default=[],
        metavar="MEASURE.FIELD=VALUE",
        help="what a measure is asked: prior.steps=200",
    )
    parser.add_argument(
        "--codecs",
        action="store_true",
        help="measure JPEG, WebP, ... or Opus (from 6 kb/s on) at the arms' rates too",
    )
    parser.add_argument("--jobs", type=int, default=1, help="cells at a time, which share the cores (default 1)")
    parser.add_argument(
        "--slurm", metavar="NAME|FILE", help="submit the cells as an array: one of configs/cluster, or a file"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the cells, or the SLURM script, and do nothing")
    parser.add_argument("--cell", type=Path, help=argparse.SUPPRESS)  # what each process of a comparison does
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)  # which started it


def run(args: argparse.Namespace) -> int:
    from mmtok.compare.plan import PLAN, Comparison
    from mmtok.compare.preflight import check
    from mmtok.compare.results import gather, tables, write

    if args.cell:
        return one_cell(args.cell, args.parent)
    if args.jobs < 1:
        raise ConfigError(f"--jobs={args.jobs} must be 1 or more.")
    if args.seeds is not None and args.seeds < 1:
        raise ConfigError(f"--seeds={args.seeds} must be 1 or more.")
    if len(args.layers) == 1 and (Path(args.layers[0]) / PLAN).is_file() and not (args.over or args.standing):
        comparison = Comparison.open(Path(args.layers[0]))
        results = gather(comparison)
        print(f"{tables(results)}\n\nwrote {write(comparison, results)}")
        return 0
    if args.study:
        return study(args)
    if args.data:
        raise ConfigError("--data names the shards of a study. Without --study: data.shards=SHARDS.")
    comparison = planned(args)
    check(comparison, data=not args.slurm)
    if args.dry_run and not args.slurm:
        print("\n".join(str(place) for place, _ in comparison.cells))
        return 0
    if args.slurm:
        return submit(comparison, args)
    return local(comparison, args)


def one_cell(folder: Path, parent: int | None = None) -> int:
    """Train and measure one cell, in the process that its comparison started for it, and ends with it."""
    from mmtok.compare.cells import run_cell
    from mmtok.processes import end_with
    from mmtok.training.callbacks.preemption import Preempted
    from mmtok.training.guard import NonFiniteError

    if parent is not None:
        end_with(parent)
    try:
        run_cell(folder)
    except NonFiniteError as error:
        print(f"mmtok: {error}", file=sys.stderr)
        return 1
    except Preempted as stop:  # a requeued job, or the same command, goes on from there
        print(f"mmtok: {stop}", file=sys.stderr)
    return 0


def planned(args: argparse.Namespace) -> Comparison:
    """The comparison the words ask for.

    Raises:
        ConfigError: a mistake in them.
    """
    from mmtok.compare.arms import arm_with, arms_over
    from mmtok.compare.plan import Comparison
    from mmtok.layers import split_arguments

    if args.out is None:
        if len(args.layers) == 1 and not (args.over or args.standing):
            refuse_folder(args.layers[0])
        raise ConfigError("-o names no folder for the comparison. Give one: -o runs/mine.")
    if not args.layers:
        raise ConfigError(
            "there is no recipe, which names the data and the networks. Give one, such as image/vqvae_cifar."
        )
    layers, settings = split_arguments([word for word in args.layers if not word.startswith(CLUSTER)])
    arms = arms_over(args.over) if args.over else ()
    return Comparison.make(
        args.out.absolute(),
        layers,
        settings,
        arms,
        [arm_with(text) for text in args.standing],
        seeds=1 if args.seeds is None else args.seeds,
        measures=[name.strip() for name in (args.measures or MEASURES).split(",") if name.strip()],
        options=asked(args.ask),
    )


def refuse_folder(word: str) -> None:
    """A single word is a comparison's folder, unless it is a recipe.

    Raises:
        ConfigError: it is neither.
    """
    from mmtok.compare.plan import PLAN
    from mmtok.resources import recipe_names

    if word in recipe_names() or "=" in word or word.endswith((".yaml", ".yml")):
        return
    if not Path(word).exists():
        raise ConfigError(f"there is nothing at {word}, and no recipe of that name. Give the folder of a comparison.")
    raise ConfigError(f"{word} is no folder of a comparison: it has no {PLAN}.")


def study(args: argparse.Namespace) -> int:
    """Do a study, part by part, and tell of each as soon as it stands, with the cells of earlier calls."""
    from mmtok.compare.jobs import run_cells
    from mmtok.compare.plan import Comparison
    from mmtok.compare.preflight import check
    from mmtok.compare.results import gather, tables, write
    from mmtok.compare.study import Study

    if args.out is None or args.over or args.standing:
        raise ConfigError("--study names its own arms, and wants a folder: --study survey --data NAME=SHARDS -o DIR.")
    ignored = {"--measures": args.measures, "--ask": args.ask, "--codecs": args.codecs, "--slurm": args.slurm}
    if given := [name for name, value in ignored.items() if value]:
        raise ConfigError(f"--study has its own {given[0]}, or does without. Leave it out, or write a study file.")
    data = dict(word.partition("=")[::2] for word in args.data)
    if empty := next((name for name, shards in data.items() if not shards), None):
        raise ConfigError(f"--data {empty}: write NAME=SHARDS.")
    found = Study.read(args.study)
    parts, left = found.comparisons(args.out.absolute(), data, args.layers, args.seeds)
    for line in left:
        print(f"mmtok: note: {line}", file=sys.stderr)
    for _, comparison in parts:
        check(comparison)
    if args.dry_run:
        print("\n".join(str(place) for _, comparison in parts for place, _ in comparison.cells))
        return 0
    Study.keep(args.study, args.out)
    failed = 0
    for part, comparison in parts:
        print(f"# {part.name}: {part.asks}")
        comparison.save()
        failed += len(run_cells(comparison.todo(), args.jobs))
        results = gather(Comparison.open(comparison.folder))
        print(f"{tables(results)}\n\nwrote {write(comparison, results)}\n", flush=True)
    return 1 if failed else 0


def asked(words: list[str]) -> dict[str, object]:
    """`measure.field=value` as values.

    Raises:
        ConfigError: one is not written so.
    """
    import yaml

    found = {}
    for word in words:
        key, _, value = word.partition("=")
        if "." not in key or not value:
            raise ConfigError(f"--ask {word}: write MEASURE.FIELD=VALUE, for example prior.steps=200.")
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--ask {word}: '{value}' is no value of YAML.") from error
    return found


def local(comparison: Comparison, args: argparse.Namespace) -> int:
    """Do the cells here, then tell of them and those of earlier calls."""
    from mmtok.compare.codecs import measure_codecs_of
    from mmtok.compare.jobs import run_cells
    from mmtok.compare.plan import Comparison
    from mmtok.compare.results import gather, tables, write

    comparison.save()
    failed = run_cells(comparison.todo(), args.jobs)
    if args.codecs:
        measure_codecs_of(comparison, gather(comparison))
    results = gather(Comparison.open(comparison.folder))
    print(f"{tables(results)}\n\nwrote {write(comparison, results)}")
    return 1 if failed else 0


def submit(comparison: Comparison, args: argparse.Namespace) -> int:
    """Hand the cells to SLURM as an array."""
    from mmtok.cli.submit import tell
    from mmtok.compare.slurm import submission_of

    words = [word.removeprefix(CLUSTER) for word in args.layers if word.startswith(CLUSTER)]
    return tell(submission_of(comparison, args.slurm, words), dry_run=args.dry_run, before=comparison.save)
