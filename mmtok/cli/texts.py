"""What `mmtok evaluate` measures and shows of a tokenizer of text."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmtok.evaluation import EvaluationReport
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.tokenizers.base import Tokenizer

COLUMNS = {
    "documents": "{:,}", "bytes_per_token": "{:.2f}", "characters_per_token": "{:.2f}", "fallback_share": "{:.1%}",
    "parity": "{:.2f}",
}  # fmt: skip
"""Measure of a language -> how it is written."""


def measure(
    tokenizer: Tokenizer, held_out: HeldOut, args: argparse.Namespace, notes: Mapping[str, Any], target: Path
) -> None:
    """Measure, write, and tell.

    Raises:
        ValueError: an option of other modalities.
    """
    from mmtok.evaluation.text import evaluate_text
    from mmtok.tokenizers.subword import SubwordTokenizer

    if args.baselines or args.probe:
        raise ValueError("--baselines and --probe are of pictures and sounds, and this tokenizer is for text.")
    assert isinstance(tokenizer, SubwordTokenizer)
    report = evaluate_text(tokenizer, held_out, reference=args.reference, notes=notes)
    report.save(target)
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
