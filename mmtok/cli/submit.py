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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layers", nargs="+", metavar="LAYER|KEY=VALUE", help="recipes, files or a run; then settings")
    parser.add_argument("--cluster", required=True, metavar="NAME|FILE", help="one of configs/cluster, or a YAML file")
    parser.add_argument("--array", metavar="KEY=A,B,C", help="a run for each value, in an array of jobs")
    parser.add_argument("--dry-run", action="store_true", help="print the script and write nothing")


def run(args: argparse.Namespace) -> int:
    from mmtok.cluster.submit import check, plan, submit
    from mmtok.config import split_arguments

    submission = plan(*split_arguments(args.layers), args.cluster, args.array)
    problems = check(submission)
    for line in problems:
        print(f"mmtok: {line}", file=sys.stderr)
    if args.dry_run:
        print(submission.script, end="")
    if problems:
        print("mmtok: not submitted, for the reasons above.", file=sys.stderr)
        return 2
    if args.dry_run:
        return 0
    job = submit(submission)
    print(f"job {job}: {submission.path}")
    places = " ".join(one.run_dir for one in submission.runs)
    print(f"Next: mmtok status {places}")
    return 0
