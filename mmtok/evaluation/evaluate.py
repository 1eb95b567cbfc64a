"""Measures a tokenizer of pictures on held-out data, and writes what would change a number beside the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmtok.evaluation.comparison import Comparison, Examples, Instruments, batches_of, build_instruments
from mmtok.evaluation.features import Features
from mmtok.evaluation.finite import require_finite
from mmtok.evaluation.metrics import DEFINITIONS, PSNR_CAP, psnr
from mmtok.evaluation.report import CodeCounts, EvaluationReport, machine
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.pixels import to_uint8, to_unit


@torch.inference_mode()
def evaluate(
    tokenizer: Tokenizer,
    loader: Iterable[Mapping[str, Any]],
    *,
    features: str | Features = "auto",
    lpips: str = "auto",
    instruments: Instruments | None = None,
    device: torch.device | str = "cpu",
    max_samples: int | None = None,
    examples: int = 8,
    every: int = 1,
    notes: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Reconstruct every picture of a loader and measure the result, in float32 and in evaluation mode.

    Args:
        tokenizer: of pictures; moved to the device.
        loader: batches with "x", uint8 or in [-1, 1], (B, C, H, W).
        features: of the Frechet distance: "auto", a name of `mmtok.evaluation.features`, an extractor, or "none".
        lpips: "auto" (alex where its weights are), "alex", "vgg", or "none".
        instruments: both of these, built before.
        device: where to compute.
        max_samples: pictures to measure at most, the first of the loader.
        examples: pictures to keep for a contact sheet.
        every: one picture in so many may be kept; neighbours in a set are often alike.
        notes: what the caller knows and a reader needs: data and its manifest's hash, crop, interpolation, EMA or raw
            weights, step. Written under `choices`.

    Raises:
        ValueError: the loader gave no picture.
    """
    tokenizer.to(device)
    instruments = instruments or build_instruments(features, lpips, device)
    run = _Evaluation(tokenizer, instruments, Examples(examples, every))
    with evaluating(tokenizer):
        for x in batches_of(loader, max_samples):
            run.add(to_unit(x.to(device)))
    if not run.samples:
        raise ValueError("There is nothing to evaluate: the loader gave no picture. Check the validation shards.")
    return run.report(dict(notes or {}))


class _Evaluation:
    """The sums of one evaluation."""

    def __init__(self, tokenizer: Tokenizer, instruments: Instruments, examples: Examples) -> None:
        self.tokenizer, self.device, self.examples = tokenizer, instruments.device, examples
        self.samples = 0
        self.comparison = Comparison(instruments)
        self.bypass_psnr = torch.zeros((), dtype=torch.float64, device=self.device)
        self.bits, self.tokens, self.pixels = 0.0, 0, 0
        self.counts = CodeCounts(tokenizer.quantizer.codebook_sizes)
        self.round_trip = 0

    def add(self, x: Tensor) -> None:
        out = self.tokenizer(x)
        require_finite(out.x)
        bypass = self.tokenizer.bypass(out.latents, tuple(x.shape[2:]))
        source, result = to_uint8(x), to_uint8(out.x)
        if not self.samples and self.counts.levels:
            # What is measured must be what a user gets, who has the ids and nothing else.
            decoded = to_uint8(self.tokenizer.decode(self.tokenizer.encode(x)))
            self.round_trip = int((decoded.int() - result.int()).abs().max())
        self.comparison.update(source, result)
        self.bypass_psnr += psnr(source, to_uint8(bypass)).sum()
        self._count(out.quantized.ids)
        self.pixels += x.shape[0] * x.shape[2] * x.shape[3]
        self.examples.add(source, result)
        self.samples += len(x)

    def _count(self, ids: Tensor) -> None:
        batch, levels, positions = ids.shape
        self.tokens += batch * levels * positions
        self.bits += batch * positions * self.tokenizer.spec.bits_per_position
        self.counts.update(ids)

    def report(self, notes: dict[str, Any]) -> EvaluationReport:
        metrics = self.comparison.metrics()
        bypass = float(self.bypass_psnr) / self.samples
        metrics |= {"psnr_bypass": bypass, "quantization_gap": bypass - metrics["psnr"]}
        if self.counts.levels:  # a tokenizer without a quantizer has no tokens to count
            metrics |= {"bits_per_pixel": self.bits / self.pixels, "tokens_per_image": self.tokens / self.samples}
        rows = self.examples.stacked()
        return EvaluationReport(
            self.samples,
            metrics,
            self.counts.usage(),
            self._choices(notes),
            tuple(self.counts.levels),
            (rows[0], rows[1]) if rows else None,
        )

    def _choices(self, notes: dict[str, Any]) -> dict[str, Any]:
        choices: dict[str, Any] = {
            "definitions": DEFINITIONS
            | {
                "quantization_gap": "psnr of the decoded latents (psnr_bypass) minus psnr of the decoded codes",
                "bits_per_pixel": "tokens of a picture times log2 of their codebook's size, over its pixels; no coding",
            },
            "psnr_cap": PSNR_CAP,
            "samples": self.samples,
            "round_trip_max_difference": self.round_trip,
        }
        return choices | machine(self.device) | self.comparison.choices() | notes
