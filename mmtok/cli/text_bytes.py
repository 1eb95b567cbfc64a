"""What `mmtok evaluate` measures and shows of a neural tokenizer of text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmtok.cli.pictures import BASELINES

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.cli.subject import Job
    from mmtok.codes import CodeSpec
    from mmtok.evaluation import EvaluationReport
    from mmtok.tokenizers.base import Tokenizer

EXAMPLES = 6
"""Documents kept to read."""
OPTIONS: dict[str, dict[str, Any]] = {"--baselines": BASELINES}
COLUMNS = {
    "byte_accuracy": ("bytes", "{:.1%}"), "exact_pieces": ("pieces", "{:.1%}"), "exact": ("texts", "{:.1%}"),
    "bits_per_byte": ("bits/byte", "{:.3f}"), "unigram_bits_per_byte": ("unigram", "{:.3f}"),
    "exact_bits_per_byte": ("to be exact", "{:.3f}"),
}  # fmt: skip
"""Measure -> the head of its column, and how it is written."""


def takes(tokenizer: Tokenizer) -> bool:
    """Whether this is a neural tokenizer of text."""
    from mmtok.tokenizers.vq_bytes import VQBytesTokenizer

    return isinstance(tokenizer, VQBytesTokenizer)


def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
    """The data of a tokenizer without a run."""
    from datamodules.text_bytes import TextBytesConfig

    return TextBytesConfig(**common)


def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """The data as they are."""
    return data


def measure(job: Job) -> None:
    """Measure, write, and tell.

    Raises:
        ValueError: baselines of a tokenizer that was not trained here.
    """
    from mmtok.evaluation.heldout import Signals
    from mmtok.evaluation.text_bytes import evaluate_text_bytes
    from mmtok.tokenizers.vq_bytes import VQBytesTokenizer

    assert isinstance(job.tokenizer, VQBytesTokenizer), "as it was taken"
    if job.args.baselines and job.subject.config is None:
        raise ValueError(f"--baselines are fitted on the training set of a run, and {job.args.run} has none.")
    report = evaluate_text_bytes(
        job.tokenizer, Signals(job.held_out), device=job.device, examples=EXAMPLES, every=job.held_out.every,
        notes=job.notes,
    )  # fmt: skip
    report.save(job.target)
    print(summary(report))
    if job.args.baselines:
        report = compare(report, job)
    if report.baselines or report.by_levels:
        print(table(report))
    if report.texts:
        path = job.target.with_name(f"{job.target.stem}-texts.txt")
        path.write_text(side_by_side(report), encoding="utf-8")
        print(f"wrote {path}")


def compare(report: EvaluationReport, job: Job) -> EvaluationReport:
    """Add vocabularies and compressors on the same documents, each as soon as it is known."""
    from mmtok.evaluation.heldout import Signals
    from mmtok.evaluation.text_baselines import (
        CHOICES,
        measure_compressors,
        measure_vocabularies,
        sizes_beside,
        texts_of,
    )

    texts = texts_of(Signals(job.held_out))
    report = replace(report, choices=report.choices | {"baselines": CHOICES})
    sizes = sizes_beside(job.tokenizer.spec.codebook_sizes)
    for measured in (measure_compressors(texts), measure_vocabularies(texts, job.subject.data, sizes)):
        for row in measured:
            report = replace(report, baselines=(*report.baselines, row))
            report.save(job.target)
    return report


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    from mmtok.cli.figures import use_of

    m = report.metrics
    lines = [
        f"{report.samples:,} documents, {report.choices['bytes']:,} bytes: {m['byte_accuracy']:.2%} of bytes come "
        f"back, {m['exact_pieces']:.2%} of pieces of 32 bytes whole, {m['exact']:.2%} of documents; "
        f"{m['invalid_utf8']:.1%} are no UTF-8 any more",
        f"without the quantizer {m['byte_accuracy_bypass']:.2%} (gap {m['quantization_gap']:.2%})",
    ]
    if "unigram_bits_per_byte" in m:
        lines.append(
            f"{m['bits_per_byte']:.3f} bits a byte, {m['unigram_bits_per_byte']:.3f} by how often codes occur; to give "
            f"every byte back, {m['exact_bits_per_byte']:.3f}"
        )
    for number, level in enumerate(report.usage):
        name = f"level {number}" if len(report.usage) > 1 else "codes"
        lines.append(
            f"{name}: {use_of(level)}, {level['active']:.1%} of {level['size']:,} in use, perplexity "
            f"{level['perplexity']:,.0f}"
        )
    languages = report.choices["by_language"]
    if len(languages) > 1:
        lines.append(
            "bytes that come back: " + ", ".join(f"{k} {v['byte_accuracy']:.1%}" for k, v in languages.items())
        )
    if "encode_mb_per_second" in m:
        lines.append(f"{m['encode_mb_per_second']:.2f} MB/s to encode, {m['decode_mb_per_second']:.2f} to decode")
    return "\n".join(lines)


def table(report: EvaluationReport) -> str:
    """The tokenizer with each number of levels, then what else there is, a row each."""
    rows = [["", *(head for head, _ in COLUMNS.values())]]
    levels = report.by_levels or ({"levels": 1} | report.metrics,)
    for row in (*levels[:-1], levels[-1] | report.metrics):
        rows.append(_row("1 level" if row["levels"] == 1 else f"{row['levels']} levels", row))
    rows += [_row(one["codec"], one["metrics"]) for one in report.baselines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, metrics: Mapping[str, Any]) -> list[str]:
    return [name, *(form.format(metrics[key]) if key in metrics else "-" for key, (_, form) in COLUMNS.items())]


def side_by_side(report: EvaluationReport) -> str:
    """Some documents and what came back."""
    assert report.texts is not None
    pairs = zip(*report.texts, strict=True)
    parts = [f"-- text {i}, input\n{one}\n\n-- text {i}, output\n{other}" for i, (one, other) in enumerate(pairs)]
    return "\n\n".join(parts) + "\n"
