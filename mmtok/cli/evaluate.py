"""Measure a trained tokenizer on a shard set.

  mmtok evaluate runs/demo/run
  mmtok evaluate runs/demo/run --shards data/kodak/val --samples 24

  mmtok evaluate runs/demo/run --baselines         # JPEG, WebP, AVIF and JPEG XL at equal bits on the same pictures
  mmtok evaluate runs/speech/run --baselines       # of sounds: Opus at 6 and 12 kb/s on the same clips
  mmtok evaluate runs/speech/run --shards data/fsdd/all --samples 3000 --probe
  mmtok evaluate runs/bpe --shards data/help/val --reference en-US --samples 2000
  mmtok evaluate imports/llamagen --shards data/imagenette/val --image-size 256    # an import or a bundle

Writes RUN/evaluation/SET-step-N.json (here val- and kodak-val-step-N.json; with --raw val-raw-step-N.json), and
pictures of reconstructions, of code usage and of the codecs' results beside it; of a bundle, which is sealed, in
BUNDLE-evaluation/.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

from mmtok.cli.options import add_options, refuse_others

TASKS = {
    "reconstruct": "mmtok.cli.reconstruct",
    "lengths": "mmtok.cli.lengths",
    "recommend": "mmtok.cli.recommend",
    "retrieve": "mmtok.cli.retrieve",
}
"""What is measured -> the module that does it: `OPTIONS`, those that not all tasks take, and `run(args) -> int`."""


def tasks() -> dict[str, Any]:
    """Every task's module by its name."""
    return {name: importlib.import_module(module) for name, module in TASKS.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, one of its checkpoints, or an import")
    parser.add_argument("--task", choices=TASKS, default="reconstruct", help="what is measured (default %(default)s)")
    parser.add_argument("--shards", metavar="SET", help="shard set (default: the run's; imports have none)")
    parser.add_argument("--samples", type=int, help="items to measure at most (default: the run's data.val_samples)")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU where there is one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; pictures go beside it")
    add_options(parser, {name: module.OPTIONS for name, module in tasks().items()})


def run(args: argparse.Namespace) -> int:
    owners = {f"--task {name}": module.OPTIONS for name, module in tasks().items()}
    refuse_others(args, owners, f"--task {args.task}", f"this is --task {args.task}")
    return int(tasks()[args.task].run(args))
