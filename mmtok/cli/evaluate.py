"""Measure a trained tokenizer on a shard set.

  mmtok evaluate runs/demo/run
  mmtok evaluate runs/demo/run --shards data/kodak/val --samples 24

Writes RUN/evaluation/SET-step-N.json (here val- and kodak-val-step-N.json; with --raw val-raw-step-N.json), and
pictures of reconstructions and of code usage beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.evaluation import EvaluationReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory or one of its checkpoints")
    parser.add_argument("--shards", metavar="SET", help="shard set (default: the run's validation set)")
    parser.add_argument("--samples", type=int, help="pictures to measure at most (default: the run's data.val_samples)")
    parser.add_argument("--features", default="auto", help="of the Frechet distance; 'none' leaves it out")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU where there is one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; pictures go beside it")


def run(args: argparse.Namespace) -> int:
    import dataclasses

    import torch

    from datamodules.base import datamodules
    from datamodules.stream import only_valid
    from mmtok.config import parse_config
    from mmtok.evaluation import evaluate
    from mmtok.loading import check_device, checkpoint_path, read_checkpoint, tokenizer_of
    from mmtok.schema import to_plain

    path = checkpoint_path(args.run)
    checkpoint = read_checkpoint(path)
    config = parse_config(checkpoint["mmtok"]["config"])
    data = config.data
    if args.samples is not None:
        data = dataclasses.replace(data, val_samples=args.samples)
    if args.shards:
        data = dataclasses.replace(data, val_shards=args.shards)
    module = datamodules.build(data)
    source = module.validation_set()
    averaged = bool(config.optim.ema) and not args.raw
    notes = {
        "run": str(args.run),
        "step": checkpoint["global_step"],
        "weights": "averaged" if averaged else "as trained",
        "data": {"set": str(source.folder), "manifest": source.manifest.fingerprint, "of": len(source)},
        "preprocessing": {key: value for key, value in to_plain(data).items() if key in PREPROCESSING},
    }
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    batches = map(only_valid, module.val_dataloader())
    every = max(1, min(len(source), data.val_samples) // EXAMPLES)
    report = evaluate(
        tokenizer_of(checkpoint, raw=args.raw),
        batches,
        features=args.features,
        device=device,
        examples=EXAMPLES,
        every=every,
        notes=notes,
    )
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    # Most sets are called 'val': another one must not write over the figures of the run's own.
    name = "-".join(source.folder.resolve().parts[-2:]) if args.shards else source.folder.name
    name += "-raw" if args.raw else ""
    target = args.out or folder / "evaluation" / f"{name}-step-{checkpoint['global_step']}.json"
    report.save(target)
    for picture in draw(report, target):
        print(f"drew {picture}")
    print(summary(report))
    print(f"wrote {target}")
    return 0


EXAMPLES = 8
"""Pictures of the contact sheet, spread over the set."""
PREPROCESSING = ("image_size", "crop", "resize", "interpolation", "grey")
"""Settings of the data module that change what is measured; validation takes the middle whatever `crop` says."""


def draw(report: EvaluationReport, target: Path) -> list[Path]:
    """The contact sheet and the usage of codes, beside the report."""
    from mmtok.evaluation.pictures import reconstruction_sheet, usage_picture

    drawn = []
    if report.examples is not None:
        drawn.append(target.with_name(f"{target.stem}-reconstructions.png"))
        reconstruction_sheet(*report.examples).save(drawn[-1])
    if report.counts:
        drawn.append(target.with_name(f"{target.stem}-usage.png"))
        usage_picture(report.counts).save(drawn[-1])
    return drawn


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    metrics = report.metrics
    lines = [f"{report.samples:,} pictures: PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f}"]
    lines[0] += "".join(f", {name} {value:.2f}" for name, value in metrics.items() if name.startswith("FD-"))
    if "bits_per_pixel" in metrics:
        lines.append(
            f"{metrics['tokens_per_image']:,.0f} tokens a picture, {metrics['bits_per_pixel']:.3f} bits a pixel; "
            f"without the quantizer {metrics['psnr_bypass']:.2f} dB (gap {metrics['quantization_gap']:.2f})"
        )
    for number, level in enumerate(report.usage):
        name = f"level {number}" if len(report.usage) > 1 else "codes"
        lines.append(
            f"{name}: {level['state']}, {level['active']:.1%} of {level['size']:,} in use, "
            f"perplexity {level['perplexity']:,.0f}"
        )
    return "\n".join(lines)
