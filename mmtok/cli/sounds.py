"""What `mmtok evaluate` measures and shows of a tokenizer of sounds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtok.cli.pictures import BASELINES

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.cli.subject import Job
    from mmtok.codes import CodeSpec
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.tokenizers.base import Tokenizer

EXAMPLES = 6
"""Clips of the picture of spectrograms."""
KEYS = r"(?P<digit>\d)_(?P<speaker>[a-z]+)_\d+"
"""Of the probe's labels in the keys of clips."""
OPTIONS: dict[str, dict[str, Any]] = {
    "--baselines": BASELINES,
    "--judged": {
        "type": int, "default": 100, "metavar": "N",
        "help": "clips for PESQ, STOI and DNSMOS at most (default 100; 0 for none)",
    },
    "--probe": {"action": "store_true", "help": "of sounds: how well a linear model reads labels off the codes"},
    "--probe-keys": {
        "default": KEYS, "metavar": "REGEX",
        "help": "pattern of the clips' keys, whose named groups are what is probed; 'speaker' keeps voices apart "
        "(default: the names of the Free Spoken Digit Dataset, '%(default)s')",
    },
}  # fmt: skip
FORMATS = {
    "si_sdr": ("SI-SDR dB", "{:.2f}"), "mel": ("mel", "{:.3f}"), "stft": ("STFT", "{:.3f}"),
    "pesq": ("PESQ", "{:.2f}"), "stoi": ("STOI", "{:.3f}"), "dnsmos": ("DNSMOS", "{:.2f}"),
}  # fmt: skip
"""Measure -> the head of its column, and how it is written."""


def takes(tokenizer: Tokenizer) -> bool:
    """Whether this is a tokenizer of sounds."""
    return tokenizer.spec.modality == "audio"


def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
    """The data of a tokenizer without a run."""
    from datamodules.audio import AudioConfig

    assert spec.sample_rate is not None, "sounds have a rate"
    return AudioConfig(sample_rate=spec.sample_rate, channels=spec.channels, **common)


def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """The data as they are; and a look at the options before anything is read.

    Raises:
        ValueError: a number of clips below none.
    """
    if args.judged < 0:
        raise ValueError(f"--judged={args.judged} is negative. Use 0 for no clips.")
    return data


def measure(job: Job) -> None:
    """Measure, write after each part, draw, and tell."""
    from mmtok.evaluation.audio import evaluate_audio
    from mmtok.evaluation.heldout import Signals

    tokenizer, held_out, args, target = job.tokenizer, job.held_out, job.args, job.target
    judge_every = max(1, -(-held_out.count // args.judged)) if args.judged else 0
    report = evaluate_audio(
        tokenizer, Signals(held_out), device=job.device, judge_every=judge_every, examples=EXAMPLES,
        every=held_out.every, notes=job.notes,
    )  # fmt: skip
    report.save(target)
    for picture in draw(report, tokenizer, target):
        print(f"drew {picture}")
    print(summary(report))
    if args.baselines:
        report = compare(report, held_out, judge_every, target)
    if report.by_levels or report.baselines:
        print(table(report))
    if args.probe:
        probe(report, tokenizer, held_out, args.probe_keys, target, job.device)


def compare(report: EvaluationReport, held_out: HeldOut, judge_every: int, target: Path) -> EvaluationReport:
    """Add Opus at two bitrates, on the same clips and by the same measures."""
    from mmtok.evaluation.heldout import Signals
    from mmtok.evaluation.opus import Opus, choices, measure_opus

    if remedy := Opus.lacks():
        print(f"Opus is absent: {remedy}")
        report = replace(report, choices=report.choices | {"baselines": {"absent": remedy}})
        report.save(target)
        return report
    report = replace(report, choices=report.choices | {"baselines": choices()})
    for row in measure_opus(Signals(held_out), report.choices["sample_rate"], judge_every=judge_every):
        report = replace(report, baselines=(*report.baselines, row))
        report.save(target)
    return report


def probe(
    report: EvaluationReport, tokenizer: Tokenizer, held_out: HeldOut, pattern: str, target: Path, device: str
) -> None:
    """Add what the codes know of labels."""
    from mmtok.evaluation.heldout import Signals
    from mmtok.evaluation.token_probe import DEFINITION, clip_features, probe_clips, targets_of

    features = clip_features(tokenizer, Signals(held_out), device)
    found = probe_clips(features, targets_of(features, pattern))
    labels = {name: asdict(result) for name, result in found.items()}
    replace(report, probe={"definition": DEFINITION, "keys": pattern, "labels": labels}).save(target)
    for name, one in found.items():
        tokens = "" if one.tokens is None else f"{one.tokens:.1%} from how often codes occur, "
        print(
            f"probe of {name}: {tokens}{one.values:.1%} from mean values, chance {one.chance:.1%} "
            f"({one.samples:,} clips, {one.classes} classes)"
        )


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    from mmtok.cli.figures import use_of

    metrics, absent = report.metrics, report.choices["absent"]
    shown = [f"{head} {form.format(metrics[name])}" for name, (head, form) in FORMATS.items() if name in metrics]
    lines = [f"{report.samples:,} clips, {report.choices['seconds']:,.1f} s: {', '.join(shown)}"]
    lines += [f"{FORMATS[name][0]} is {remedy}" for name, remedy in absent.items()]
    for name, judged in report.choices["judged_clips"].items():
        if judged["left_out"]:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in judged["left_out"].items())
            lines.append(f"{FORMATS[name][0]} is over {judged['judged']:,} clips; left out: {reasons}")
    lines.append(
        f"without the quantizer {metrics['si_sdr_bypass']:.2f} dB SI-SDR (gap {metrics['quantization_gap']:.2f})"
    )
    if "bits_per_second" in metrics:
        efficiency = metrics.get("bitrate_efficiency")
        lines[-1] = (
            f"{metrics['bits_per_second']:,.0f} bits/s, {metrics['tokens_per_second']:,.4g} tokens/s"
            + ("" if efficiency is None else f", bitrate efficiency {efficiency:.1%}")
            + f"; {lines[-1]}"
        )
        lines.append(
            f"{metrics['real_time_factor_encode']:.1f} times real time to encode, "
            f"{metrics['real_time_factor_decode']:.1f} to decode"
        )
    for number, level in enumerate(report.usage):
        name = f"level {number}" if len(report.usage) > 1 else "codes"
        lines.append(
            f"{name}: {use_of(level)}, {level['active']:.1%} of {level['size']:,} in use, perplexity "
            f"{level['perplexity']:,.0f}, {level['entropy']:.2f} bits of entropy"
        )
    return "\n".join(lines)


def table(report: EvaluationReport) -> str:
    """The tokenizer with each number of levels, and Opus, a row each."""
    names = [name for name in FORMATS if name in report.metrics]
    rows = [["", "bits/s", *(FORMATS[name][0] for name in names)]]
    levels = report.by_levels or ({"levels": 1} | report.metrics,)
    for row in levels:
        label = "1 level" if row["levels"] == 1 else f"{row['levels']} levels"
        rows.append(_row(label, row.get("bits_per_second"), row, names))
    rows += [_row(one["codec"], one["bits_per_second"], one["metrics"], names) for one in report.baselines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, bits: float | None, metrics: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    values = [FORMATS[measure][1].format(metrics[measure]) if measure in metrics else "-" for measure in names]
    return [name, "-" if bits is None else f"{bits:,.0f}", *values]


def draw(report: EvaluationReport, tokenizer: Tokenizer, target: Path) -> list[Path]:
    """Spectrograms and the usage of codes, beside the report."""
    from mmtok.evaluation.pictures import usage_picture
    from mmtok.evaluation.sound_pictures import sound_sheet

    drawn = []
    if report.clips is not None:
        drawn.append(target.with_name(f"{target.stem}-reconstructions.png"))
        rate = tokenizer.spec.sample_rate or 1
        rows = dict(zip(("input", "reconstruction"), report.clips, strict=True))
        captions = [f"{clip.shape[1] / rate:.2f} s" for clip in report.clips[0]]
        sound_sheet(rows, rate, captions=captions).save(drawn[-1])
    if report.counts:
        drawn.append(target.with_name(f"{target.stem}-usage.png"))
        usage_picture(report.counts).save(drawn[-1])
    return drawn
