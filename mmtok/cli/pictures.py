"""What `mmtok evaluate` measures and shows of a tokenizer of pictures."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.cli.subject import Job
    from mmtok.codes import CodeSpec
    from mmtok.config import RunConfig
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.comparison import Instruments
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.tokenizers.base import Tokenizer

DEFAULT_SIZE = 256
"""Side of the squares that an imported tokenizer of pictures is measured on."""
EXAMPLES = 10
"""Pictures of the contact sheets, spread over the set."""
BASELINES = {"action": "store_true", "help": "measure picture codecs at the same bits a pixel, or Opus"}
OPTIONS: dict[str, dict[str, Any]] = {
    "--baselines": BASELINES,
    "--image-size": {
        "type": int, "metavar": "PIXELS", "help": "side of the squares measured (default: the run's, else 256)",
    },
    "--features": {"default": "auto", "help": "of the Frechet distance and KID; 'none' leaves them out"},
    "--lpips": {"default": "auto", "help": "net of LPIPS: alex (default, where its weights are), vgg, none"},
}  # fmt: skip


def takes(tokenizer: Tokenizer) -> bool:
    """Whether this is a tokenizer of pictures."""
    return tokenizer.spec.modality == "image"


def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
    """The data of a tokenizer without a run."""
    from datamodules.images import ImagesConfig

    return ImagesConfig(image_size=DEFAULT_SIZE, grey=spec.channels == 1, **common)


def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """The data in the size that was asked for."""
    return data if args.image_size is None else replace(data, image_size=args.image_size)  # type: ignore[call-arg]


def measure(job: Job) -> None:
    """Measure, write, draw, and tell."""
    from mmtok.cli.figures import draw, summary
    from mmtok.evaluation import evaluate
    from mmtok.evaluation.comparison import build_instruments

    args, held_out, config = job.args, job.held_out, job.subject.config
    instruments = build_instruments(args.features, args.lpips, job.device)
    report = evaluate(
        job.tokenizer, held_out, instruments=instruments, device=job.device, examples=EXAMPLES, every=held_out.every,
        notes={**job.notes, "trained_on": {} if config is None else judges_of_training(config, instruments)},
    )  # fmt: skip
    report.save(job.target)
    for picture in draw(report, job.target):
        print(f"drew {picture}")
    print(summary(report))
    if args.baselines:
        compare(report, held_out, instruments, job.target)


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
    from mmtok.cli.figures import draw_baselines, table
    from mmtok.evaluation.baselines import choices, measure_codecs
    from mmtok.evaluation.codecs import available_codecs

    if "bits_per_pixel" not in report.metrics:
        raise ValueError(f"{target.stem}: a tokenizer without a quantizer has no bits that codecs could be held to.")
    report = replace(report, choices=report.choices | {"baselines": choices()})
    measured = measure_codecs(
        pictures, available_codecs(), report.metrics["bits_per_pixel"],
        instruments=instruments, examples=EXAMPLES, every=pictures.every,
    )  # fmt: skip
    results = []
    for result in measured:
        results.append(result)
        report = replace(report, baselines=tuple(one.to_dict() for one in results))
        report.save(target)
    if sheet := draw_baselines(report, results, target):
        print(f"drew {sheet}")
    print(table(report))
