"""What is measured of a cell, by name: reconstruction, prior, probe, cost, levels, lengths, bits, usage; a file each.

Every figure is a number under `figures`, by a name with its measure before a slash left out where no other has it.
`AXES` says what each is and which way is better.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmtok.compare.asked import check_asked
from mmtok.compare.lengths import LengthsConfig, lengths
from mmtok.compare.levels import BitsConfig, LevelsConfig, bits, levels
from mmtok.compare.occupancy import UsageConfig, usage
from mmtok.compare.prior import PriorConfig, measure_prior
from mmtok.compare.subject import EXAMPLES, Subject
from mmtok.compare.tokens import Tokens, labels_by
from mmtok.compare.understanding import ReaderConfig, raw_understanding, understand
from mmtok.evaluation.features import FEATURES
from mmtok.evaluation.heldout import Signals
from mmtok.evaluation.report import EvaluationReport
from mmtok.schema import ConfigError, parse, suggest
from mmtok.tokenizers.base import evaluating


@dataclass(frozen=True)
class ReconstructionConfig:
    """What `reconstruction` is asked."""

    samples: int = 1000
    """Held-out items."""
    features: str = "auto"
    """Of the Frechet distance."""
    judged: int = 50
    """Clips for PESQ and STOI."""

    def __post_init__(self) -> None:
        check_asked(self, zero=("judged",))
        if self.features not in ("auto", "none", *FEATURES):
            raise ValueError(f"there are no features '{self.features}'.{suggest(self.features, ['none', *FEATURES])}")

    def every(self, clips: int) -> int:
        """One clip in so many is judged; 0 judges none."""
        return max(1, -(-clips // self.judged)) if self.judged else 0


@dataclass(frozen=True)
class PriorAsked(PriorConfig):
    """What `prior` is asked."""

    held_out: int = 1000
    """Items read."""


@dataclass(frozen=True)
class ProbeConfig(ReaderConfig):
    """What `probe` is asked."""

    samples: int = 10_000
    """Training items."""
    held_out: int = 2000
    """Items read."""
    keys: str = ""
    """Pattern of the keys whose first named group is the label; empty takes the set's own."""


@dataclass(frozen=True)
class CostConfig:
    """What `cost` is asked."""

    batch: int = 32
    """Items encoded together."""
    rounds: int = 5
    """Times; the median counts."""

    def __post_init__(self) -> None:
        check_asked(self)


def reconstruction(subject: Subject, asked: ReconstructionConfig) -> dict[str, Any]:
    """Distortion, rate, usage and the quantization gap; and some items to look at."""
    from mmtok.compare.examples import write_examples

    report = EVALUATIONS[subject.tokenizer.spec.modality](subject, asked)
    if not subject.latent:  # there was nothing to leave unrounded
        metrics = {
            name: value
            for name, value in report.metrics.items()
            if not name.endswith("_bypass") and name != "quantization_gap"
        }
        report = replace(report, metrics=metrics)
    write_examples(report, subject.tokenizer, subject.folder / "examples")
    plain = report.to_dict()
    return {"figures": _figures(plain), "report": plain, "counts": [one.tolist() for one in report.counts]}


def _pictures(subject: Subject, asked: ReconstructionConfig) -> EvaluationReport:
    from mmtok.evaluation.evaluate import evaluate

    held_out = subject.held_out(asked.samples)
    return evaluate(
        subject.tokenizer, held_out, features=asked.features, device=subject.device, examples=EXAMPLES,
        every=held_out.every, notes=held_out.notes(),
    )  # fmt: skip


def _sounds(subject: Subject, asked: ReconstructionConfig) -> EvaluationReport:
    from mmtok.evaluation.audio import evaluate_audio

    held_out = subject.held_out(asked.samples)
    judge_every = asked.every(held_out.count)
    return evaluate_audio(
        subject.tokenizer, Signals(held_out), device=subject.device, judge_every=judge_every, examples=EXAMPLES,
        every=held_out.every, notes=held_out.notes(),
    )  # fmt: skip


def _texts(subject: Subject, asked: ReconstructionConfig) -> EvaluationReport:
    from mmtok.evaluation.text_bytes import evaluate_text_bytes
    from mmtok.tokenizers.vq_bytes import VQBytesTokenizer

    if not isinstance(subject.tokenizer, VQBytesTokenizer):
        raise ConfigError(f"{subject.cell.arm.name} is a vocabulary: it stands beside by --codecs, not as an arm.")
    held_out = subject.held_out(asked.samples)
    return evaluate_text_bytes(
        subject.tokenizer, Signals(held_out), device=subject.device, examples=EXAMPLES, every=held_out.every,
        notes=held_out.notes(),
    )  # fmt: skip


EVALUATIONS: dict[str, Callable[[Subject, ReconstructionConfig], EvaluationReport]] = {
    "image": _pictures,
    "audio": _sounds,
    "text": _texts,
}
"""Modality -> what measures how much of it comes back."""


def _figures(report: Mapping[str, Any]) -> dict[str, float]:
    metrics, usage = report["metrics"], report["usage"]
    found = {name: value for name, value in metrics.items() if value is not None}
    found |= {
        f"byte_accuracy_levels_{row['levels']}": row["byte_accuracy"]
        for row in report.get("by_levels", ())
        if "byte_accuracy" in row
    }
    if usage:
        found["active"] = min(level["active"] for level in usage)
        found["active_of_expected"] = min(level["active_expected"] for level in usage)
        found["perplexity_norm"] = min(level["perplexity_norm"] for level in usage)
    return found


def prior(subject: Subject, asked: PriorAsked) -> dict[str, Any]:
    """Bits of a sample under one fixed autoregressive model."""
    if not subject.sizes:
        return {"figures": {}, "absent": "nothing is quantized, so there are no codes to predict"}
    train, held_out = subject.tokens(True, asked.samples), subject.tokens(False, asked.held_out)
    result = measure_prior(train.ids, held_out.ids, subject.sizes, asked, seed=subject.cell.seed, device=subject.device)
    figures = {
        "prior_bits_per_sample": result.bits_per_sample,
        "prior_bits_per_token": result.bits_per_token,
        "prior_flops_per_sample": result.flops_per_sample,
        "bits_per_sample": result.uniform_bits,
        "unigram_bits_per_sample": result.unigram_bits,
        "tokens_per_sample": result.tokens_per_sample,
    }
    if subject.tokenizer.spec.sample_rate:
        figures["prior_bits_per_second"] = result.bits_per_sample * len(held_out) / held_out.units
    if subject.tokenizer.spec.modality == "text":
        figures["prior_bits_per_byte"] = result.bits_per_sample * len(held_out) / held_out.units
    return {"figures": figures, "result": asdict(result)}


def probe(subject: Subject, asked: ProbeConfig) -> dict[str, Any]:
    """Labels read off values and off ids, and off the input itself."""
    train, held_out = subject.tokens(True, asked.samples), subject.tokens(False, asked.held_out)
    if asked.keys:
        train, held_out = _labelled(train, held_out, asked.keys)
    result = understand(train, held_out, subject.sizes, asked, seed=subject.cell.seed)
    if result is None:
        return {
            "figures": {},
            "absent": "the sets have no labels of two classes; probe.keys=REGEX reads them off the keys",
        }
    figures = {"probe_chance": result.chance}
    if subject.latent:
        figures |= {"linear_accuracy": result.linear, "neighbour_accuracy": result.neighbours}
    if result.transformer is not None:
        figures["transformer_accuracy"] = result.transformer
    labels = train.labels, held_out.labels
    raw = raw_understanding(
        Signals(subject.training(asked.samples)), Signals(subject.held_out(asked.held_out)), labels,
        subject.tokenizer.spec.downsample, asked, seed=subject.cell.seed, cache=subject.folder.parents[2] / "raw",
    )  # fmt: skip
    return {"figures": figures | raw, "result": asdict(result)}


def _labelled(train: Tokens, held_out: Tokens, pattern: str) -> tuple[Tokens, Tokens]:
    """With labels off the keys, by the pattern's first named group."""
    found = [labels_by(tokens.keys, pattern) for tokens in (train, held_out)]
    if not all(found):
        raise ConfigError(
            f"probe.keys={pattern} does not match every key, such as '{train.keys[0]}', or names no group."
        )
    name = next(iter(found[0]))
    known = sorted(set(found[0][name]))
    numbers = [torch.tensor([known.index(one) if one in known else -1 for one in labels[name]]) for labels in found]
    return dataclasses.replace(train, labels=numbers[0]), dataclasses.replace(held_out, labels=numbers[1])


def cost(subject: Subject, asked: CostConfig) -> dict[str, Any]:
    """Seconds of an update, memory, parameters, and items a second to encode."""
    figures = {"parameters": float(sum(one.numel() for one in subject.tokenizer.parameters()))}
    run = Path(subject.cell.arm.path or subject.folder)
    log, memory = run / "metrics.csv", run / "memory.json"
    if log.is_file():
        with log.open() as file:
            steps = [float(row["speed/step_seconds"]) for row in csv.DictReader(file) if row.get("speed/step_seconds")]
        if steps:
            figures["step_seconds"] = statistics.median(steps)
    if memory.is_file():
        figures["peak_gib"] = json.loads(memory.read_text())["peak_bytes"] / 2**30
    x = next(_first(Signals(subject.held_out(asked.batch))))[: asked.batch].to(subject.device)
    seconds = []
    with evaluating(subject.tokenizer):
        for _ in range(asked.rounds + 1):
            began = time.perf_counter()
            subject.tokenizer.encode(x)
            if subject.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    figures["encode_seconds_per_sample"] = statistics.median(seconds[1:]) / len(x)
    return {"figures": figures}


def _first(signals: Signals) -> Iterator[torch.Tensor]:
    for batch in signals:
        yield batch["x"]


class Measure(NamedTuple):
    """A measure, and the dataclass of what it is asked."""

    act: Callable[[Subject, Any], dict[str, Any]]
    asked: type

    def measure(self, subject: Subject, options: Mapping[str, Any]) -> dict[str, Any]:
        """Figures and more, as JSON can hold them."""
        return self.act(subject, self.asked(**options))


MEASURES: dict[str, Measure] = {
    "reconstruction": Measure(reconstruction, ReconstructionConfig),
    "prior": Measure(prior, PriorAsked),
    "probe": Measure(probe, ProbeConfig),
    "cost": Measure(cost, CostConfig),
    "levels": Measure(levels, LevelsConfig),
    "lengths": Measure(lengths, LengthsConfig),
    "bits": Measure(bits, BitsConfig),
    "usage": Measure(usage, UsageConfig),
}
"""A plugin adds its own."""


def options_of(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a measure is asked, complete.

    Args:
        name: of the measure.
        options: of all measures, by `measure.field`.

    Raises:
        ConfigError: there is no such measure or field, or the value does not fit.
    """
    if name not in MEASURES:
        raise ConfigError(f"there is no measure '{name}'.{suggest(name, MEASURES)}")
    for key in options:
        if key.partition(".")[0] not in MEASURES:
            raise ConfigError(f"{key}: there is no measure '{key.partition('.')[0]}'.{suggest(key, MEASURES)}")
    own = {key.partition(".")[2]: value for key, value in options.items() if key.partition(".")[0] == name}
    return asdict(parse(MEASURES[name].asked, own, name, label=name))
