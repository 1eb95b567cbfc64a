"""What `mmtok evaluate` measures and shows of a tokenizer of text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.cli.subject import Job
    from mmtok.codes import CodeSpec
    from mmtok.evaluation import EvaluationReport
    from mmtok.tokenizers.base import Tokenizer

COLUMNS = {
    "documents": "{:,}", "bytes_per_token": "{:.2f}", "characters_per_token": "{:.2f}", "fallback_share": "{:.1%}",
    "parity": "{:.2f}",
}  # fmt: skip
"""Measure of a language -> how it is written."""


OPTIONS: dict[str, dict[str, Any]] = {
    "--reference": {
        "metavar": "LANGUAGE", "help": "of texts: what parity is measured against (default: the shortest)",
    }
}  # fmt: skip
EXAMPLES = 1


def takes(tokenizer: Tokenizer) -> bool:
    """Whether this is a fitted tokenizer of text."""
    from mmtok.tokenizers.subword import SubwordTokenizer

    return isinstance(tokenizer, SubwordTokenizer)


def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
    """The data of a tokenizer without a run."""
    from datamodules.texts import TextsConfig

    return TextsConfig(**common)


def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
    """The data as they are."""
    return data


def measure(job: Job) -> None:
    """Measure, write, and tell."""
    from mmtok.evaluation.text import evaluate_text
    from mmtok.tokenizers.subword import SubwordTokenizer

    assert isinstance(job.tokenizer, SubwordTokenizer), "as it was taken"
    report = evaluate_text(job.tokenizer, job.held_out, reference=job.args.reference, notes=job.notes)
    report.save(job.target)
    print(summary(report))
    print(table(report))


def summary(report: EvaluationReport) -> str:
    """The figures a person looks for first."""
    m = report.metrics
    lines = [
        f"{report.samples:,} documents: {m['bytes_per_token']:.3f} bytes a token, {m['characters_per_token']:.3f} "
        f"characters a token, {m['bits_per_byte']:.3f} bits a byte",
        f"{m['exact']:.2%} come back exactly, {m['fallback_share']:.2%} of tokens are single bytes beyond ASCII",
        f"{m['vocabulary_used']:.1%} of {m['vocabulary']:,.0f} tokens in use, {m['unreached']:,.0f} cannot be reached; "
        f"{m['encode_mb_per_second']:.1f} MB/s",
    ]
    if inexact := report.choices["inexact"]:
        lines.append(f"not exact: {', '.join(inexact[:3])}{' ...' if len(inexact) > 3 else ''}")
    return "\n".join(lines)


def table(report: EvaluationReport) -> str:
    """A row a language."""
    languages = report.choices["by_language"]
    names = [name for name in COLUMNS if any(name in one for one in languages.values())]
    rows = [["", *(name.replace("_", " ") for name in names)]]
    for language, one in languages.items():
        rows.append([language, *(COLUMNS[name].format(one[name]) if name in one else "-" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    parity = report.choices["parity"]
    if parity["reference"]:
        lines.append(
            f"parity: tokens over those of {parity['reference']}, on {parity['documents']:,} documents that all have"
        )
    return "\n".join(line.rstrip() for line in lines)
