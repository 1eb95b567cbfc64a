"""Turn shards of pictures, sounds or vectors into shards of codes, for language models (then: mmtok pack).

  mmtok tokenize bundles/image data/photos/train tokens/photos --size fit
  mmtok tokenize bundles/speech data/speech/train tokens/speech --devices cuda:0,cuda:1
  sbatch --array=0-15 --gpus-per-node=8 --wrap 'mmtok tokenize bundles/image data/train tokens/train'

OUT becomes a shard set with a tar for each of SHARDS, raw codes in it, and the spec they belong to. The same command
continues after whatever stopped it, and leaves the same bytes. A task of a SLURM array takes its part by itself; the
last one writes the manifest. Samples that cannot be read are left out, counted and named.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SHOWN = 5
"""Bad samples that are printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a bundle, a run directory, a checkpoint or an import")
    parser.add_argument("shards", metavar="SHARDS", help="a shard set of pictures or sounds")
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for the shards of codes")
    parser.add_argument(
        "--size", default="own", metavar="own|fit|N",
        help="pictures: as they are (default); 'fit', scaled and cut to the size the tokenizer was trained on; or to N",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=int, default=32, metavar="N",
        help="pictures of the trained size, or sounds of ten seconds, in a batch (default: 32)",
    )  # fmt: skip
    parser.add_argument(
        "--budget", metavar="N|NAME=N", help="how much of a code to keep: a number of levels, or tokens=64, bits=1000, "
        "psnr=30 (pictures) or snr=12, of each item for itself; psnr=30,predicted searches nothing"
    )  # fmt: skip
    parser.add_argument(
        "--keep", metavar="EXT,...", help="members that go along (default: txt,cls, where there are any); '' for none"
    )
    parser.add_argument("--devices", default="auto", help="cpu, or cuda:0,cuda:1, ...; by default all GPUs")
    parser.add_argument(
        "--part", metavar="I/N", help="the shards I, I + N, ...; by default those of a SLURM array's task"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="processes that decode for each device")
    parser.add_argument("--cache-dir", metavar="DIR", help="folder for remote shards")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.encoding import Settings
    from mmtok.export.tokenize_job import Part, all_devices, tokenize

    if args.batch < 1:
        raise ValueError(f"--batch={args.batch} must be at least 1.")
    if args.workers is not None and args.workers < 0:
        raise ValueError(f"--workers={args.workers} must be at least 0.")
    if args.size not in ("own", "fit") and not (args.size.isdigit() and int(args.size)):
        raise ValueError(f"--size={args.size} must be own, fit or a side in pixels.")
    part = Part.parse(args.part) if args.part else Part.of(os.environ)
    devices = all_devices() if args.devices == "auto" else args.devices.split(",")
    workers = args.workers
    if workers is None:
        workers = max(1, len(os.sched_getaffinity(0)) // len(devices) - 1)
    keep = None if args.keep is None else tuple(name for name in args.keep.split(",") if name)
    settings = Settings(
        args.tokenizer, args.shards, args.out, args.size, args.batch, args.budget, keep,
        args.raw, workers, args.cache_dir,
    )  # fmt: skip
    total = tokenize(settings, devices, part, lambda line: print(line, file=sys.stderr, flush=True))
    rate = f", {total.items / total.seconds:,.1f}/s" if total.items else ""
    print(f"{total.items:,} items, {total.codes:,} codes in {total.seconds:,.1f} s{rate}")
    for shard, key, reason in total.bad[:SHOWN]:
        print(f"mmtok: left out {key} in {shard}: {reason}", file=sys.stderr)
    if total.bad:
        print(f"mmtok: {len(total.bad)} samples left out; all are named in {args.out}/*.record.json", file=sys.stderr)
    if total.failed:
        print(f"mmtok: {len(total.failed)} shards could not be written, for the reasons above.", file=sys.stderr)
        return 2
    if total.missing:
        print(f"{args.out}: {total.missing} shards of other parts are missing yet; the last part writes the manifest.")
    else:
        print(f"{args.out} is whole. Next: mmtok pack {args.out} --vocab DIR --to FORMAT -o OUT")
    return 0
