"""Measure a trained tokenizer on a shard set.

  mmtok evaluate runs/demo/run
  mmtok evaluate runs/demo/run --shards data/kodak/val --samples 24

  mmtok evaluate runs/demo/run --baselines         # JPEG, WebP, AVIF and JPEG XL at equal bits on the same pictures

Writes RUN/evaluation/SET-step-N.json (here val- and kodak-val-step-N.json; with --raw val-raw-step-N.json), and
pictures of reconstructions, of code usage and of the codecs' results beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from datamodules.module import ShardDataModule
    from mmtok.config import RunConfig
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.comparison import Instruments

EXAMPLES = 10
"""Pictures of the contact sheets, spread over the set."""
PREPROCESSING = ("image_size", "crop", "resize", "interpolation", "grey")
"""Settings of the data module that change what is measured; validation takes the middle whatever `crop` says."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory or one of its checkpoints")
    parser.add_argument("--shards", metavar="SET", help="shard set (default: the run's validation set)")
    parser.add_argument("--samples", type=int, help="pictures to measure at most (default: the run's data.val_samples)")
    parser.add_argument("--features", default="auto", help="of the Frechet distance and KID; 'none' leaves them out")
    parser.add_argument(
        "--lpips", default="auto", help="net of LPIPS: alex (default, where its weights are), vgg, none"
    )
    parser.add_argument("--baselines", action="store_true", help="measure picture codecs at the same bits a pixel")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU where there is one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; pictures go beside it")


def run(args: argparse.Namespace) -> int:
    import torch

    from mmtok.cli.figures import draw, summary
    from mmtok.config import parse_config
    from mmtok.evaluation import evaluate
    from mmtok.evaluation.comparison import build_instruments
    from mmtok.loading import check_device, open_checkpoint, tokenizer_of

    path, checkpoint, _ = open_checkpoint(args.run)
    config = parse_config(checkpoint["mmtok"]["config"])
    pictures = _Pictures(config.data, args)
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    instruments = build_instruments(args.features, args.lpips, device)
    notes = {
        "run": str(args.run),
        "step": checkpoint["global_step"],
        "weights": "averaged" if config.optim.ema and not args.raw else "as trained",
        "trained_on": judges_of_training(config, instruments),
        **pictures.notes(),
    }
    report = evaluate(
        tokenizer_of(checkpoint, raw=args.raw), pictures,
        instruments=instruments, device=device, examples=EXAMPLES, every=pictures.every, notes=notes,
    )  # fmt: skip
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = pictures.name + ("-raw" if args.raw else "")
    target = args.out or folder / "evaluation" / f"{name}-step-{checkpoint['global_step']}.json"
    report.save(target)
    for picture in draw(report, target):
        print(f"drew {picture}")
    print(summary(report))
    if args.baselines:
        compare(report, pictures, instruments, target)
    print(f"wrote {target}")
    return 0


def judges_of_training(config: RunConfig, instruments: Instruments) -> dict[str, str]:
    """Measure -> the term of the objective that uses the same network: it flatters a run that was trained with it."""
    from mmtok.evaluation.comparison import kid_name, lpips_name
    from mmtok.evaluation.features import EffLite0Features
    from mmtok.losses.classifier import ClassifierConfig
    from mmtok.losses.perceptual import LPIPSConfig

    found = {}
    features, lpips = instruments.features, instruments.lpips
    for name, term in config.loss.items():
        if isinstance(term, LPIPSConfig) and lpips is not None and term.net == lpips.config.net:
            found[lpips_name(lpips)] = f"loss.{name}"
        if isinstance(term, ClassifierConfig) and term.net == "efflite0" and isinstance(features, EffLite0Features):
            found |= {features.name: f"loss.{name}", kid_name(features): f"loss.{name}"}
    return found


def compare(report: EvaluationReport, pictures: _Pictures, instruments: Instruments, target: Path) -> None:
    """Measure every codec of this machine, add each to the file as soon as it is known, and draw them side by side."""
    import dataclasses

    from mmtok.cli.figures import draw_baselines, table
    from mmtok.evaluation.baselines import choices, measure_codecs
    from mmtok.evaluation.codecs import available_codecs

    if "bits_per_pixel" not in report.metrics:
        raise ValueError(f"{target.stem}: a tokenizer without a quantizer has no bits that codecs could be held to.")
    report = dataclasses.replace(report, choices=report.choices | {"baselines": choices()})
    measured = measure_codecs(
        pictures, available_codecs(), report.metrics["bits_per_pixel"],
        instruments=instruments, examples=EXAMPLES, every=pictures.every,
    )  # fmt: skip
    results = []
    for result in measured:
        results.append(result)
        report = dataclasses.replace(report, baselines=tuple(one.to_dict() for one in results))
        report.save(target)
    if sheet := draw_baselines(report, results, target):
        print(f"drew {sheet}")
    print(table(report))


class _Pictures:
    """The held-out set that is measured: batches that can be read again, in the same order."""

    def __init__(self, data: DataConfig, args: argparse.Namespace) -> None:
        import dataclasses

        from datamodules.base import datamodules

        if args.samples is not None:
            data = dataclasses.replace(data, val_samples=args.samples)
        if args.shards:
            data = dataclasses.replace(data, val_shards=args.shards)
        self.data = data
        self.module: ShardDataModule = datamodules.build(data)
        self.sets = self.module.validation_sets()
        self.every = max(1, sum(min(len(one), data.val_samples) for one in self.sets) // EXAMPLES)
        # Most sets are called 'val': another one must not write over the figures of the run's own.
        self.name = "+".join(one.name(2 if args.shards or len(self.sets) > 1 else 1) for one in self.sets)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        from datamodules.stream import only_valid

        return map(only_valid, self.module.val_dataloader())

    def notes(self) -> dict[str, Any]:
        """What changes a number."""
        from datamodules.remote import shown
        from mmtok.schema import to_plain

        settings = {key: value for key, value in to_plain(self.data).items() if key in PREPROCESSING}
        of = {
            "set": " + ".join(shown(one.home) for one in self.sets),
            "manifest": "+".join(one.manifest.fingerprint for one in self.sets),
            "of": sum(map(len, self.sets)),
        }
        return {"data": of, "preprocessing": settings}
