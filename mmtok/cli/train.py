"""Train a tokenizer, or continue a run.

  mmtok train image/vqvae data.shards=data/cifar/train
  mmtok train image/vqvae hardware/ddp logger/wandb quantizer.name=fsq trainer.devices=8
  mmtok train runs/image/vqvae/3f2a91c0de

  mmtok train text/bpe data.shards=data/help/train     # fitted: one pass over a sample, in one process

Recipes are merged left to right, then the settings. The same command again continues the run.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.config import FitConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layers", nargs="+", metavar="LAYER|KEY=VALUE", help="recipes, files or a run; then settings")


def run(args: argparse.Namespace) -> int:
    from lightning.pytorch.utilities import rank_zero_only

    from mmtok.cluster.status import status
    from mmtok.cluster.task import check_task, core_lines
    from mmtok.config import FitConfig, load_any
    from mmtok.layers import split_arguments
    from mmtok.loading import checkpoint_path
    from mmtok.training.callbacks.preemption import Preempted
    from mmtok.training.guard import NonFiniteError
    from mmtok.training.run import train

    first = not rank_zero_only.rank  # type: ignore[attr-defined]  # ranks of a job run this same command
    loaded = load_any(*split_arguments(args.layers))
    for key in loaded.dropped:
        print(f"mmtok: {key} is left out: the chosen name does not have it", file=sys.stderr)
    config = loaded.config
    if isinstance(config, FitConfig):
        return _fit(config)
    check_task(os.environ, config.trainer.devices, config.trainer.num_nodes)
    if hasattr(os, "sched_getaffinity") and not int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))):
        cores = len(os.sched_getaffinity(0))
        for line in core_lines(os.environ, cores, config.data.workers, config.trainer.threads):
            print(f"mmtok: note: {line}", file=sys.stderr)
    try:
        run_dir = train(config)
    except NonFiniteError as error:
        print(f"mmtok: {error}", file=sys.stderr)
        return 1
    except Preempted as stop:
        if first:
            print(f"mmtok: {stop}", file=sys.stderr)
        return 0  # what was asked for is done; srun --kill-on-bad-exit would end ranks that still save
    except KeyboardInterrupt:
        run_dir = Path(config.run_dir)
        saved = run_dir.exists() and checkpoint_path(run_dir).is_file()
        does = "continues from the last checkpoint" if saved else "starts again: no checkpoint was reached"
        print(f"mmtok: stopped. The same command {does} ({run_dir}).", file=sys.stderr)
        return 130
    if first:
        # A run that had gone further than it is asked to now has what it had.
        steps = max(config.trainer.max_steps, status(run_dir).step)
        print(f"done: {steps:,} steps in {run_dir}. Next: mmtok evaluate {quote(str(run_dir))}")
    return 0


def _fit(config: FitConfig) -> int:
    from mmtok.training.fit import fit

    try:
        run_dir = fit(config)
    except KeyboardInterrupt:
        print("mmtok: stopped. The same command starts again: a fit is done in one pass.", file=sys.stderr)
        return 130
    print(f"done: fitted in {run_dir}. Next: mmtok evaluate {quote(str(run_dir))}")
    return 0
