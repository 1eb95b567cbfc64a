"""Measure a trained tokenizer on a shard set.

  mmtok evaluate runs/demo/run
  mmtok evaluate runs/demo/run --shards data/kodak/val --samples 24

  mmtok evaluate runs/demo/run --baselines         # JPEG, WebP, AVIF and JPEG XL at equal bits on the same pictures
  mmtok evaluate runs/speech/run --baselines       # of sounds: Opus at 6 and 12 kb/s on the same clips
  mmtok evaluate runs/speech/run --shards data/fsdd/all --samples 3000 --probe

Writes RUN/evaluation/SET-step-N.json (here val- and kodak-val-step-N.json; with --raw val-raw-step-N.json), and
pictures of reconstructions, of code usage and of the codecs' results beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmtok.cli.heldout import HeldOut
    from mmtok.config import RunConfig
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.comparison import Instruments
    from mmtok.tokenizers.base import Tokenizer

EXAMPLES = 10
"""Pictures of the contact sheets, spread over the set."""
KEYS = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+"
"""Of the probe's labels in the keys of clips."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory or one of its checkpoints")
    parser.add_argument("--shards", metavar="SET", help="shard set (default: the run's validation set)")
    parser.add_argument("--samples", type=int, help="items to measure at most (default: the run's data.val_samples)")
    parser.add_argument("--features", default="auto", help="of the Frechet distance and KID; 'none' leaves them out")
    parser.add_argument(
        "--lpips", default="auto", help="net of LPIPS: alex (default, where its weights are), vgg, none"
    )
    parser.add_argument(
        "--baselines", action="store_true", help="measure picture codecs at the same bits a pixel, or Opus"
    )
    parser.add_argument(
        "--judged", type=int, default=100, metavar="N", help="clips for PESQ, STOI and DNSMOS at most (default 100)"
    )
    parser.add_argument(
        "--probe", action="store_true", help="of sounds: how well a linear model reads labels off the codes"
    )
    parser.add_argument(
        "--probe-keys", default=KEYS, metavar="REGEX",
        help="pattern of the clips' keys, whose named groups are what is probed; 'speaker' keeps voices apart "
        "(default: the names of the Free Spoken Digit Dataset, '%(default)s')",
    )  # fmt: skip
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU where there is one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; pictures go beside it")


def run(args: argparse.Namespace) -> int:
    import torch

    from mmtok.cli import sounds
    from mmtok.cli.heldout import HeldOut
    from mmtok.config import parse_config
    from mmtok.loading import check_device, open_checkpoint, tokenizer_of

    if args.judged < 1:
        raise ValueError(f"--judged={args.judged} must be at least 1.")
    path, checkpoint, _ = open_checkpoint(args.run)
    config = parse_config(checkpoint["mmtok"]["config"])
    tokenizer = tokenizer_of(checkpoint, raw=args.raw)
    modality = tokenizer.spec.modality
    if modality not in ("image", "audio"):
        raise ValueError(f"evaluate measures pictures and sounds, and {args.run} is of modality '{modality}'.")
    held_out = HeldOut(config.data, args, sounds.EXAMPLES if modality == "audio" else EXAMPLES)
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    notes = {
        "run": str(args.run),
        "step": checkpoint["global_step"],
        "weights": "averaged" if config.optim.ema and not args.raw else "as trained",
        **held_out.notes(),
    }
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = held_out.name + ("-raw" if args.raw else "")
    target = args.out or folder / "evaluation" / f"{name}-step-{checkpoint['global_step']}.json"
    if modality == "audio":
        sounds.measure(tokenizer, held_out, args, notes, target, device)
    else:
        measure(tokenizer, held_out, args, notes, target, config, device)
    print(f"wrote {target}")
    return 0


def measure(
    tokenizer: Tokenizer,
    held_out: HeldOut,
    args: argparse.Namespace,
    notes: Mapping[str, Any],
    target: Path,
    config: RunConfig,
    device: str,
) -> None:
    """Measure a tokenizer of pictures, write, draw, and tell."""
    from mmtok.cli.figures import draw, summary
    from mmtok.evaluation import evaluate
    from mmtok.evaluation.comparison import build_instruments

    if args.probe:
        raise ValueError("--probe is of sounds; the probe of pictures is read at every validation (val probe/*).")
    instruments = build_instruments(args.features, args.lpips, device)
    report = evaluate(
        tokenizer, held_out, instruments=instruments, device=device, examples=EXAMPLES, every=held_out.every,
        notes={**notes, "trained_on": judges_of_training(config, instruments)},
    )  # fmt: skip
    report.save(target)
    for picture in draw(report, target):
        print(f"drew {picture}")
    print(summary(report))
    if args.baselines:
        compare(report, held_out, instruments, target)


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


def compare(report: EvaluationReport, pictures: HeldOut, instruments: Instruments, target: Path) -> None:
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
