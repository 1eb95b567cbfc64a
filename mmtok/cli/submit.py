"""Submit a run, or an array of runs, to SLURM; it requeues itself until it is done.

  mmtok submit image/vqgan hardware/gpu data.shards=/data/train --cluster gpu
  mmtok submit image/vqvae hardware/gpu cluster.nodes=4 cluster.time=12:00:00 --cluster gpu
  mmtok submit image/vqvae hardware/gpu --cluster gpu_node --array quantizer.name=vq,fsq,lfq,rq
  mmtok submit runs/mine --cluster gpu --dry-run

Recipes and settings are those of `mmtok train`; `cluster.KEY=value` changes the cluster's. The script is written into
the run directory, beside a copy of the code. --dry-run prints it, with what the preflight finds, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from shlex import quote
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.cluster.submit import Submission


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layers", nargs="+", metavar="LAYER|KEY=VALUE", help="recipes, files or a run; then settings")
    parser.add_argument("--cluster", required=True, metavar="NAME|FILE", help="one of configs/cluster, or a YAML file")
    parser.add_argument("--array", metavar="KEY=A,B,C", help="a run for each value, in an array of jobs")
    parser.add_argument("--dry-run", action="store_true", help="print the script and write nothing")


def run(args: argparse.Namespace) -> int:
    from mmtok.cluster.submit import plan
    from mmtok.layers import split_arguments

    return tell(plan(*split_arguments(args.layers), args.cluster, args.array), dry_run=args.dry_run)


def tell(submission: Submission, *, dry_run: bool, before: Callable[[], None] | None = None) -> int:
    """Check, print or submit, and say what comes next.

    Args:
        submission: the job.
        dry_run: print the script and write nothing.
        before: what is to be written before the job may start.
    """
    from mmtok.cluster.submit import check, submit

    problems = check(submission)
    for line in problems:
        print(f"mmtok: {line}", file=sys.stderr)
    if dry_run:
        print(submission.script, end="")
    if problems:
        print("mmtok: not submitted, for the reasons above.", file=sys.stderr)
        return 2
    if dry_run:
        return 0
    if before is not None:
        before()
    job = submit(submission)
    print(f"job {job}: {submission.path}")
    places = " ".join(quote(str(one.run_dir)) for one in submission.runs)
    print(f"Next: mmtok status {places}")
    return 0
