"""Measures a tokenizer of pictures on held-out data, and writes what would change a number beside the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.evaluation.comparison import Comparison, Examples, Instruments, batches_of, build_instruments
from mmtok.evaluation.features import Features
from mmtok.evaluation.metrics import DEFINITIONS, PSNR_CAP, psnr
from mmtok.quantizers.usage import measure
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.pixels import to_uint8, to_unit

MAX_COUNTED = 2**20
"""Codebooks above this size are too large for a table of counts; their usage is left out."""


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` found."""

    samples: int
    """Pictures measured."""
    metrics: dict[str, float]
    """By name; LPIPS under the name of its net, Frechet and kernel distances under that of their features."""
    usage: list[dict[str, Any]]
    """Measures and state of each level's codebook."""
    choices: dict[str, Any]
    """What would change a number: definitions, features, versions, what the caller knows of data and weights."""
    counts: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    """Occurrences of each code, (K,) a level. Not written to the file."""
    examples: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)
    """uint8 inputs and reconstructions of some pictures, smaller ones on white. Not written to the file."""
    baselines: tuple[dict[str, Any], ...] = ()
    """What codecs make of the same pictures with as many bits, from `mmtok.evaluation.baselines`."""

    def to_dict(self) -> dict[str, Any]:
        """What the file holds; a number that does not exist is None."""
        plain = {"samples": self.samples, "metrics": self.metrics, "usage": self.usage, "choices": self.choices}
        return _finite(plain | ({"baselines": list(self.baselines)} if self.baselines else {}))

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


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
        sizes = tokenizer.quantizer.codebook_sizes
        self.counts = [torch.zeros(size if size <= MAX_COUNTED else 0, dtype=torch.long) for size in sizes]
        self.round_trip = 0

    def add(self, x: Tensor) -> None:
        out = self.tokenizer(x)
        bypass = self.tokenizer.bypass(out.latents, tuple(x.shape[2:]))
        source, result = to_uint8(x), to_uint8(out.x)
        if not self.samples and self.counts:
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
        for level, counts in enumerate(self.counts):
            if counts.numel():
                used = ids[:, level].flatten()
                counts += torch.bincount(used[used >= 0], minlength=counts.numel()).cpu()

    def report(self, notes: dict[str, Any]) -> EvaluationReport:
        metrics = self.comparison.metrics()
        bypass = float(self.bypass_psnr) / self.samples
        metrics |= {"psnr_bypass": bypass, "quantization_gap": bypass - metrics["psnr"]}
        if self.counts:  # a tokenizer without a quantizer has no tokens to count
            metrics |= {"bits_per_pixel": self.bits / self.pixels, "tokens_per_image": self.tokens / self.samples}
        measured = [measure(counts) for counts in self.counts if counts.numel()]
        usage = [asdict(level) | {"state": str(level.state())} for level in measured]
        rows = self.examples.stacked()
        return EvaluationReport(
            self.samples,
            metrics,
            usage,
            self._choices(notes),
            tuple(self.counts),
            (rows[0], rows[1]) if rows else None,
        )

    def _choices(self, notes: dict[str, Any]) -> dict[str, Any]:
        from mmtok import __version__

        choices: dict[str, Any] = {
            "definitions": DEFINITIONS
            | {
                "quantization_gap": "psnr of the decoded latents (psnr_bypass) minus psnr of the decoded codes",
                "bits_per_pixel": "tokens of a picture times log2 of their codebook's size, over its pixels; no coding",
            },
            "psnr_cap": PSNR_CAP,
            "samples": self.samples,
            "round_trip_max_difference": self.round_trip,
            "device": self.device.type,
            # torch lets convolutions on a GPU use TF32 unless told otherwise; ids at ties may differ by it.
            "precision": "tf32" if self.device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32",
            "versions": {"mmtok": __version__, "torch": torch.__version__},
        }
        return choices | self.comparison.choices() | notes


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
