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
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.config import RunConfig
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.comparison import Instruments
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.tokenizers.base import Tokenizer

DEFAULT_SIZE = 256
"""Side of the squares that an imported tokenizer of pictures is measured on."""
EXAMPLES = 10
"""Pictures of the contact sheets, spread over the set."""
KEYS = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+"
"""Of the probe's labels in the keys of clips."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run directory, one of its checkpoints, or an import")
    parser.add_argument("--shards", metavar="SET", help="shard set (default: the run's; imports have none)")
    parser.add_argument("--samples", type=int, help="items to measure at most (default: the run's data.val_samples)")
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the squares measured (default: the run's, else 256)"
    )
    parser.add_argument("--features", default="auto", help="of the Frechet distance and KID; 'none' leaves them out")
    parser.add_argument(
        "--lpips", default="auto", help="net of LPIPS: alex (default, where its weights are), vgg, none"
    )
    parser.add_argument(
        "--baselines", action="store_true", help="measure picture codecs at the same bits a pixel, or Opus"
    )
    parser.add_argument(
        "--judged",
        type=int,
        default=100,
        metavar="N",
        help="clips for PESQ, STOI and DNSMOS at most (default 100; 0 for none)",
    )
    parser.add_argument(
        "--probe", action="store_true", help="of sounds: how well a linear model reads labels off the codes"
    )
    parser.add_argument(
        "--probe-keys", default=KEYS, metavar="REGEX",
        help="pattern of the clips' keys, whose named groups are what is probed; 'speaker' keeps voices apart "
        "(default: the names of the Free Spoken Digit Dataset, '%(default)s')",
    )  # fmt: skip
    parser.add_argument(
        "--reference", metavar="LANGUAGE", help="of texts: what parity is measured against (default: the shortest)"
    )
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--device", default="auto", help="where to compute (default: a GPU where there is one)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON file; pictures go beside it")


class Subject(NamedTuple):
    """What is measured, on what, and where its reports go."""

    tokenizer: Tokenizer
    data: DataConfig
    folder: Path
    config: RunConfig | None = None
    """Of the run; None of an imported tokenizer."""
    step: int | None = None
    weights: str = "imported"


def trained(args: argparse.Namespace) -> Subject:
    """The tokenizer of a run, and its own data."""
    from mmtok.config import FitConfig, parse_any
    from mmtok.loading import open_checkpoint, tokenizer_of

    path, checkpoint, _ = open_checkpoint(args.run)
    config = parse_any(checkpoint["mmtok"]["config"])
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if isinstance(config, FitConfig):
        return Subject(tokenizer_of(checkpoint), config.data, folder, weights="fitted")
    weights = "averaged" if config.optim.ema and not args.raw else "as trained"
    tokenizer = tokenizer_of(checkpoint, raw=args.raw)
    return Subject(tokenizer, config.data, folder, config, checkpoint["global_step"], weights)


def imported(args: argparse.Namespace) -> Subject:
    """A tokenizer without a run, which knows of no data.

    Raises:
        ValueError: no set is named.
    """
    from datamodules.audio import AudioConfig
    from datamodules.images import ImagesConfig
    from mmtok.export.folder import read_model
    from mmtok.export.sealed import MANIFEST
    from mmtok.tokenizers.exported import require_whole

    if not args.shards:
        raise ValueError(f"{args.run} was not trained here, so it has no validation set. Name one: --shards SET.")
    tokenizer = read_model(args.run)
    require_whole(tokenizer, f"{args.run} cannot be evaluated")
    spec = tokenizer.spec
    common: dict[str, Any] = {"shards": args.shards, "batch_size": 8, "workers": 0}
    data: DataConfig
    if spec.sample_rate is not None:
        data = AudioConfig(sample_rate=spec.sample_rate, channels=spec.channels, **common)
    else:
        data = ImagesConfig(image_size=DEFAULT_SIZE, grey=spec.channels == 1, **common)
    folder = Path(args.run)
    sealed = (folder / MANIFEST).is_file()  # a file that is put into a bundle breaks its promises
    return Subject(tokenizer, data, folder.with_name(f"{folder.name}-evaluation") if sealed else folder)


def run(args: argparse.Namespace) -> int:
    import torch

    from mmtok.cli import sounds, texts
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.export.folder import is_model
    from mmtok.loading import check_device

    if args.judged < 0:
        raise ValueError(f"--judged={args.judged} is negative. Use 0 for no clips.")
    subject = imported(args) if is_model(args.run) else trained(args)
    tokenizer, config = subject.tokenizer, subject.config
    modality = tokenizer.spec.modality
    if modality not in ("image", "audio", "text"):
        raise ValueError(f"evaluate measures pictures, sounds and texts; {args.run} is of modality '{modality}'.")
    if args.reference is not None and modality != "text":
        raise ValueError("--reference is of texts, and this tokenizer is for something else.")
    if args.image_size is not None:
        if modality != "image":
            raise ValueError(f"--image-size is of pictures, and this tokenizer is of modality '{modality}'.")
        subject = subject._replace(data=replace(subject.data, image_size=args.image_size))  # type: ignore[call-arg]
    held_out = HeldOut(
        subject.data, shards=args.shards, samples=args.samples,
        examples=sounds.EXAMPLES if modality == "audio" else EXAMPLES,
    )  # fmt: skip
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    notes = {"run": str(args.run), "step": subject.step, "weights": subject.weights, **held_out.notes()}
    name = held_out.name + ("-raw" if args.raw else "") + ("" if subject.step is None else f"-step-{subject.step}")
    target = args.out or subject.folder / "evaluation" / f"{name}.json"
    check_writable(target)
    if modality == "audio":
        sounds.measure(tokenizer, held_out, args, notes, target, device)
    elif modality == "text":
        texts.measure(tokenizer, held_out, args, notes, target)
    else:
        measure(tokenizer, held_out, args, notes, target, config, device)
    print(f"wrote {target}")
    return 0


def check_writable(target: Path) -> None:
    """Find out before minutes of measuring whether their figures can be kept: room for 64 KiB beside the target.

    Raises:
        OSError: they cannot; the command says why.
    """
    if target.is_dir():
        raise ValueError(f"--out={target} is a folder. Name a file: {target / 'evaluation.json'}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as file:
        file.write(bytes(1 << 16))
        file.flush()


def measure(
    tokenizer: Tokenizer,
    held_out: HeldOut,
    args: argparse.Namespace,
    notes: Mapping[str, Any],
    target: Path,
    config: RunConfig | None,
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
        notes={**notes, "trained_on": {} if config is None else judges_of_training(config, instruments)},
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
