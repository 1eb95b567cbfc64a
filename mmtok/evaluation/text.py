"""Measures a tokenizer of text on held-out documents: how short, how exact, how fair between languages, how fast.

Use of the vocabulary is told in numbers, without a state: that few tokens are frequent and most are rare is how words
are (Zipf), not a collapse.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmtok.evaluation.report import EvaluationReport, machine
from mmtok.quantizers.usage import measure
from mmtok.tokenizers.subword import SubwordTokenizer

_NO_PARALLEL = (
    "No document of the set says what it is a translation of: build it with a `group` in --names (docs/datasets.md)."
)
DEFINITIONS = {
    "bytes_per_token": "bytes of UTF-8 over tokens, all documents together; higher is shorter",
    "characters_per_token": "Unicode characters over tokens",
    "exact": "share of documents that decode to the very same text",
    "fallback_share": "tokens that are one byte beyond ASCII, over all tokens",
    "worst_language": "bytes per token of the language where it is lowest (by characters: worst_language_characters)",
    "parity": "tokens of a language over those of the reference on the same parallel documents; 1 is equal",
    "vocabulary_used": "share of all tokens but control tokens that occur",
    "gini": "of the learned tokens' frequencies; words are uneven, so high values are healthy here",
    "renyi_efficiency": "Renyi entropy of order 2.5 over the log of the vocabulary (Zouhar et al. 2023, 2306.16842)",
    "unreached": "learned tokens that their own text, alone, is not encoded as",
    "bits_per_byte": "entropy of these documents' token frequencies over bytes: a unigram model that knows them",
    "encode_mb_per_second": "megabytes of text encoded a second, in batches, all threads of the engine",
}


@dataclass
class _Language:
    documents: int = 0
    bytes: int = 0
    characters: int = 0
    tokens: int = 0
    fallback: int = 0
    parallel: dict[str, int] = field(default_factory=dict)
    """Tokens of each parallel document."""

    def figures(self) -> dict[str, float]:
        tokens = max(self.tokens, 1)
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes / tokens,
            "characters_per_token": self.characters / tokens,
            "fallback_share": self.fallback / tokens,
        }


def evaluate_text(
    tokenizer: SubwordTokenizer,
    loader: Iterable[Mapping[str, Any]],
    *,
    reference: str | None = None,
    notes: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Encode and decode every document of a loader.

    Args:
        tokenizer: fitted.
        loader: batches of lists "x", "language", "parallel" (see `datamodules.texts`).
        reference: language that parity is measured against; by default the one whose parallel documents take the
            fewest tokens.
        notes: what the caller knows and a reader needs.

    Raises:
        ValueError: the loader gave nothing, or no language of that name.
    """
    run = _Evaluation(tokenizer)
    for batch in loader:
        run.add(batch)
    if not run.languages:
        raise ValueError("There is nothing to evaluate: the loader gave no text. Check the validation shards.")
    return run.report(reference, dict(notes or {}))


class _Evaluation:
    """The sums of one evaluation."""

    def __init__(self, tokenizer: SubwordTokenizer) -> None:
        self.tokenizer = tokenizer
        self.fallback = tokenizer.is_fallback()
        self.counts = torch.zeros(tokenizer.spec.codebook_sizes[0], dtype=torch.int64)
        self.languages: dict[str, _Language] = {}
        self.inexact: list[str] = []
        self.seconds = 0.0

    def add(self, batch: Mapping[str, Any]) -> None:
        texts = list(batch["x"])
        self.tokenizer.check(texts)
        began = time.perf_counter()
        rows = self.tokenizer.tokens(texts)
        self.seconds += time.perf_counter() - began
        back = self.tokenizer.texts(rows)
        for i, text in enumerate(texts):
            ids = torch.tensor(rows[i], dtype=torch.int64)
            self.counts += torch.bincount(ids, minlength=len(self.counts))
            one = self.languages.setdefault(batch["language"][i], _Language())
            one.documents += 1
            one.bytes += len(text.encode())
            one.characters += len(text)
            one.tokens += len(ids)
            one.fallback += int(self.fallback[ids].sum())
            if batch["parallel"][i]:
                group = batch["parallel"][i]  # of one document, or of the parts it was cut into
                one.parallel[group] = one.parallel.get(group, 0) + len(ids)
            if back[i] != text:
                self.inexact.append(batch["key"][i])

    def report(self, reference: str | None, notes: dict[str, Any]) -> EvaluationReport:
        samples = sum(one.documents for one in self.languages.values())
        total = _sum(self.languages.values())
        metrics = {name: value for name, value in total.figures().items() if name not in ("documents", "bytes")}
        by_language = {name: one.figures() for name, one in sorted(self.languages.items())}
        metrics |= {
            "exact": 1 - len(self.inexact) / samples,
            "worst_language": min(one["bytes_per_token"] for one in by_language.values()),
            "worst_language_characters": min(one["characters_per_token"] for one in by_language.values()),
            "bits_per_byte": entropy(self.counts) * total.tokens / max(total.bytes, 1),
            "encode_mb_per_second": total.bytes / 1e6 / max(self.seconds, 1e-9),
        }
        metrics |= self._vocabulary()
        parity, against = self._parity(reference)
        for name, value in parity.items():
            by_language[name]["parity"] = value
        if parity:
            metrics["worst_parity"] = max(parity.values())
        choices = {
            "definitions": DEFINITIONS,
            "by_language": by_language,
            "parity": {"reference": against, "documents": self._shared()},
            "inexact": self.inexact[:20],
        }
        return EvaluationReport(samples, metrics, [], choices | machine(torch.device("cpu")) | notes)

    def _vocabulary(self) -> dict[str, float]:
        """How many tokens occur, and how many cannot."""
        tokenizer = self.tokenizer
        learned = ~tokenizer.is_control()
        used = (self.counts > 0) & learned
        return {
            "vocabulary": float(len(self.counts)),
            "vocabulary_used": float(used.sum() / learned.sum().clamp(min=1)),
            "most_frequent": float(self.counts.max() / self.counts.sum().clamp(min=1)),
            "gini": measure(self.counts[learned]).gini,
            "renyi_efficiency": renyi_efficiency(self.counts[learned]),
            "unreached": float(len(unreached(tokenizer))),
        }

    def _shared(self) -> int:
        return len(self._common()) if len(self._parallel()) > 1 else 0

    def _parallel(self) -> dict[str, dict[str, int]]:
        return {name: one.parallel for name, one in self.languages.items() if one.parallel}

    def _common(self) -> set[str]:
        """Documents that stand in every language that has parallel ones."""
        return set.intersection(*map(set, self._parallel().values()))

    def _parity(self, reference: str | None) -> tuple[dict[str, float], str | None]:
        """Tokens of each language over the reference's."""
        parallel = self._parallel()
        if reference is not None and reference not in parallel:
            some = f"Languages that have some: {', '.join(sorted(parallel))}." if parallel else _NO_PARALLEL
            raise ValueError(f"there is no parallel text in '{reference}'. {some}")
        if len(parallel) < 2 or not (common := self._common()):
            return {}, None
        sums = {name: sum(tokens[one] for one in common) for name, tokens in parallel.items()}
        against = reference or min(sums, key=lambda name: sums[name])
        return {name: value / max(sums[against], 1) for name, value in sorted(sums.items())}, against


def _sum(languages: Iterable[_Language]) -> _Language:
    total = _Language()
    for one in languages:
        for name in ("documents", "bytes", "characters", "tokens", "fallback"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
    return total


def entropy(counts: Tensor) -> float:
    """Bits a token, of frequencies (V,)."""
    shares = counts[counts > 0].double() / counts.sum().clamp(min=1)
    return float(-(shares * shares.log2()).sum())


def renyi_efficiency(counts: Tensor, order: float = 2.5) -> float:
    """Renyi entropy of frequencies (V,) over that of a uniform use: 1 where all tokens are as frequent."""
    shares = counts[counts > 0].double() / counts.sum().clamp(min=1)
    return float(shares.pow(order).sum().log() / (1 - order) / math.log(max(len(counts), 2)))


def unreached(tokenizer: SubwordTokenizer) -> list[int]:
    """Learned tokens whose own text is not encoded as them. Those that are no whole text (parts of a character, which
    only stand inside others) are left out: nothing can be said of them.
    """
    learned = (~tokenizer.is_control()).tolist()
    candidates: dict[int, str] = {}
    for number, piece in enumerate(tokenizer.pieces()):
        if learned[number]:
            try:
                candidates[number] = piece.decode()
            except UnicodeDecodeError:
                continue
    rows = tokenizer.tokens(list(candidates.values()))
    return [number for number, row in zip(candidates, rows, strict=True) if row != [number]]
