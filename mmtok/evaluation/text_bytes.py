"""Measures a neural tokenizer of text on held-out documents: how much comes back, at how many bits a byte."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor

from mmtok.evaluation.audio import bits_of, budgets
from mmtok.evaluation.byte_metrics import DEFINITIONS, ByteMetrics, inside_of
from mmtok.evaluation.finite import require_finite
from mmtok.evaluation.report import CodeCounts, EvaluationReport, machine
from mmtok.evaluation.text_modality import as_text, positions_of, rates
from mmtok.tokenizers.base import evaluating
from mmtok.tokenizers.vq_bytes import VQBytesTokenizer

OWN_DEFINITIONS = {
    "byte_accuracy_bypass": "byte_accuracy of the decoded latents, not rounded to codes",
    "quantization_gap": "byte_accuracy_bypass minus byte_accuracy",
    "bits_per_byte": "codes times log2 of their codebook's size, over bytes; no entropy coding",
    "unigram_bits_per_byte": "entropy of how often each code of these documents occurs, over bytes: a model that knows "
    "these frequencies, whose table is not counted; of baselines likewise",
    "exact_bits_per_byte": "unigram_bits_per_byte plus nll_bits_per_byte: what it takes to send codes and then, by the "
    "decoder's probabilities, every byte; of what is exact already, the same as unigram_bits_per_byte",
    "invalid_utf8": "share of documents whose bytes came back as no UTF-8; decode writes U+FFFD there",
    "by_levels": "the same documents decoded from their first levels alone",
    "encode_mb_per_second": "megabytes encoded a second, in the batch that was measured first",
}


@torch.inference_mode()
def evaluate_text_bytes(
    tokenizer: VQBytesTokenizer,
    loader: Iterable[Mapping[str, Any]],
    *,
    device: torch.device | str = "cpu",
    max_samples: int | None = None,
    examples: int = 6,
    every: int = 1,
    notes: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Encode and decode every document of a loader and measure the result, in float32 and in evaluation mode.

    Args:
        tokenizer: moved to the device.
        loader: batches with "x" (B, 1, S) of uint8, "lengths" (B,) and "language" (see `datamodules.text_bytes`).
        device: where to compute.
        max_samples: documents to measure at most, the first of the loader.
        examples: documents to keep to read.
        every: one document in so many may be kept.
        notes: what the caller knows and a reader needs. Written under `choices`.

    Raises:
        ValueError: the loader gave nothing.
    """
    tokenizer.to(device)
    run = _Evaluation(tokenizer, torch.device(device), examples, every)
    with evaluating(tokenizer):
        for batch in loader:
            left = None if max_samples is None else max_samples - run.samples
            if left is not None and left <= 0:
                break
            run.add(batch["x"][:left], batch["lengths"][:left], batch["language"][:left])
    if not run.samples:
        raise ValueError("There is nothing to evaluate: the loader gave no text. Check the validation shards.")
    return run.report(dict(notes or {}))


@dataclass
class _Language:
    documents: int = 0
    bytes: int = 0
    right: int = 0


class _Evaluation:
    """The sums of one evaluation."""

    def __init__(self, tokenizer: VQBytesTokenizer, device: torch.device, examples: int, every: int) -> None:
        self.tokenizer, self.device, self.spec = tokenizer, device, tokenizer.spec
        self.whole, self.bypass = ByteMetrics(device), ByteMetrics(device)
        self.fewer = {k: ByteMetrics(device) for k in budgets(tokenizer.quantizer.depth)}
        self.kept: dict[int, list[int]] = {}
        self.counts = CodeCounts(self.spec.codebook_sizes)
        self.languages: dict[str, _Language] = {}
        self.samples = self.positions = self.invalid = self.round_trip = 0
        self.speed: dict[str, float] = {}
        self.wanted, self.every = examples, every
        self.texts: list[tuple[str, str]] = []

    def add(self, x: Tensor, lengths: Tensor, languages: list[str]) -> None:
        """A batch of bytes (B, 1, S)."""
        x, lengths = x.to(self.device), lengths.to(self.device)
        out = self.tokenizer(x, lengths)
        require_finite(out.x)
        if not self.samples and self.counts.levels:
            self._use(x, lengths, out.x)
        right = self.whole.update(x, out.x, lengths)
        self.bypass.update(x, self.tokenizer.bypass(out.latents, tuple(x.shape[2:])), lengths)
        for k, metrics in self.fewer.items():
            levels = self.tokenizer.kept_levels(len(x), k)
            few = self.tokenizer.quantizer(out.latents.z, out.latents.mask, grid=None, levels=levels)
            self.kept[k] = [level for level in range(few.ids.shape[1]) if bool((few.ids[:, level] >= 0).any())]
            y = self.tokenizer.synthesise(few.values, None, tuple(x.shape[2:]), mask=out.latents.mask)
            metrics.update(x, y, lengths)
        self.counts.update(out.quantized.ids)
        self.positions += int(positions_of(lengths, self.spec.downsample))
        back = out.x.argmax(1)
        for i, (size, language) in enumerate(zip(lengths.tolist(), languages, strict=True)):
            one = self.languages.setdefault(language, _Language())
            one.documents, one.bytes, one.right = (
                one.documents + 1, one.bytes + size, one.right + int(right[i].sum()),
            )  # fmt: skip
            text = bytes(back[i, :size].tolist())
            self.invalid += _is_invalid(text)
            if (self.samples + i) % self.every == 0 and len(self.texts) < self.wanted:
                self.texts.append((as_text(x[i, 0, :size]), text.decode("utf-8", "replace")))
        self.samples += len(x)

    def _use(self, x: Tensor, lengths: Tensor, logits: Tensor) -> None:
        """What a user gets, who has the ids and nothing else: whether it is the same, and how fast."""
        began = time.perf_counter()
        codes = self.tokenizer.encode(x, lengths)
        between = time.perf_counter()
        decoded = self.tokenizer.decode_bytes(codes)[:, 0]
        ended, size = time.perf_counter(), float(lengths.sum()) / 1e6
        self.speed = {
            "encode_mb_per_second": size / (between - began),
            "decode_mb_per_second": size / (ended - between),
        }
        differ = (decoded != logits.argmax(1)[:, : decoded.shape[1]]) & inside_of(decoded, lengths)
        self.round_trip = int(differ.sum())

    def report(self, notes: dict[str, Any]) -> EvaluationReport:
        metrics = self.whole.result()
        metrics["byte_accuracy_bypass"] = self.bypass.result()["byte_accuracy"]
        metrics["quantization_gap"] = metrics["byte_accuracy_bypass"] - metrics["byte_accuracy"]
        metrics["invalid_utf8"] = self.invalid / self.samples
        usage = self.counts.usage()
        counted = bool(usage) and len(usage) == len(self.counts.levels)  # none was too large to be counted
        entropy = sum(one["entropy_norm"] * log2(one["size"]) for one in usage) if counted else None
        metrics |= rates(self.spec, self.positions, self.whole.bytes, entropy, metrics["nll_bits_per_byte"])
        inputs, outputs = zip(*self.texts, strict=True) if self.texts else ((), ())
        return EvaluationReport(
            self.samples,
            metrics | self.speed,
            usage,
            self._choices(notes),
            tuple(self.counts.levels),
            texts=(inputs, outputs),
            by_levels=tuple(self._rows()),
        )

    def _rows(self) -> list[dict[str, Any]]:
        """One for each number of levels, the last with all."""
        if not self.fewer:
            return []
        each = self.positions / max(self.whole.bytes, 1)
        rows = [
            {"levels": k, "bits_per_byte": each * bits_of(self.spec, self.kept[k]), **metrics.result()}
            for k, metrics in self.fewer.items()
        ]
        whole = {"levels": self.tokenizer.quantizer.depth, "bits_per_byte": each * self.spec.bits_per_position}
        return [*rows, whole | self.whole.result()]

    def _choices(self, notes: dict[str, Any]) -> dict[str, Any]:
        languages = {
            name: {"documents": one.documents, "bytes": one.bytes, "byte_accuracy": one.right / max(one.bytes, 1)}
            for name, one in sorted(self.languages.items())
        }
        choices: dict[str, Any] = {
            "definitions": DEFINITIONS | OWN_DEFINITIONS,
            "samples": self.samples,
            "bytes": int(self.whole.bytes),
            "by_language": languages,
            "round_trip_bytes_that_differ": self.round_trip,
            "threads": torch.get_num_threads(),
        }
        return choices | machine(self.device) | notes


def _is_invalid(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return True
    return False
