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

from mmtok.evaluation.features import Features, build_features
from mmtok.evaluation.frechet import ENOUGH, FeatureSums, frechet_distance
from mmtok.evaluation.metrics import DEFINITIONS, PSNR_CAP, PictureMetrics, psnr
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
    """By name; a Frechet distance under the name of its features."""
    usage: list[dict[str, Any]]
    """Measures and state of each level's codebook."""
    choices: dict[str, Any]
    """What would change a number: definitions, features, versions, what the caller knows of data and weights."""
    counts: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    """Occurrences of each code, (K,) a level. Not written to the file."""
    examples: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)
    """uint8 inputs and reconstructions of the first pictures. Not written to the file."""

    def to_dict(self) -> dict[str, Any]:
        """What the file holds; a number that does not exist is None."""
        plain = {"samples": self.samples, "metrics": self.metrics, "usage": self.usage, "choices": self.choices}
        return _finite(plain)

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
    if isinstance(features, str):
        features_used = None if features == "none" else build_features(features).to(device)
    else:
        features_used = features.to(device)
    run = _Evaluation(tokenizer, features_used, torch.device(device), examples, every)
    with evaluating(tokenizer):
        for batch in loader:
            left = None if max_samples is None else max_samples - run.samples
            if left is not None and left <= 0:
                break
            run.add(to_unit(batch["x"][:left].to(device)))
    if not run.samples:
        raise ValueError("There is nothing to evaluate: the loader gave no picture. Check the validation shards.")
    return run.report(dict(notes or {}))


class _Evaluation:
    """The sums of one evaluation."""

    def __init__(
        self, tokenizer: Tokenizer, features: Features | None, device: torch.device, examples: int, every: int
    ) -> None:
        self.tokenizer, self.features, self.device = tokenizer, features, device
        self.wanted, self.every = examples, every
        self.samples = 0
        self.metrics = PictureMetrics(device)
        self.bypass_psnr = torch.zeros((), dtype=torch.float64, device=device)
        self.bits, self.tokens, self.pixels = 0.0, 0, 0
        sizes = tokenizer.quantizer.codebook_sizes
        self.counts = [torch.zeros(size if size <= MAX_COUNTED else 0, dtype=torch.long) for size in sizes]
        self.sums = [FeatureSums(features.dim, device) for _ in range(2)] if features else []
        self.examples: list[tuple[Tensor, Tensor]] = []
        self.round_trip = 0

    def add(self, x: Tensor) -> None:
        out = self.tokenizer(x)
        bypass = self.tokenizer.bypass(out.latents, tuple(x.shape[2:]))
        source, result = to_uint8(x), to_uint8(out.x)
        if not self.samples and self.counts:
            # What is measured must be what a user gets, who has the ids and nothing else.
            decoded = to_uint8(self.tokenizer.decode(self.tokenizer.encode(x)))
            self.round_trip = int((decoded.int() - result.int()).abs().max())
        self.metrics.update(source, result)
        self.bypass_psnr += psnr(source, to_uint8(bypass)).sum()
        for sums, pictures in zip(self.sums, (source, result), strict=False):
            assert self.features is not None
            sums.update(self.features(pictures))
        self._count(out.quantized.ids)
        self.pixels += x.shape[0] * x.shape[2] * x.shape[3]
        kept = sum(len(pictures) for pictures, _ in self.examples)
        chosen = slice(-self.samples % self.every, None, self.every)
        self.examples.append((source[chosen][: self.wanted - kept].cpu(), result[chosen][: self.wanted - kept].cpu()))
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
        metrics = self.metrics.result()
        bypass = float(self.bypass_psnr) / self.samples
        metrics |= {"psnr_bypass": bypass, "quantization_gap": bypass - metrics["psnr"]}
        if self.counts:  # a tokenizer without a quantizer has no tokens to count
            metrics |= {"bits_per_pixel": self.bits / self.pixels, "tokens_per_image": self.tokens / self.samples}
        if self.features is not None and self.samples > 1:
            metrics[self.features.name] = frechet_distance(self.sums[1], self.sums[0])
        measured = [measure(counts) for counts in self.counts if counts.numel()]
        usage = [asdict(level) | {"state": str(level.state())} for level in measured]
        first = [torch.cat(parts) for parts in zip(*self.examples, strict=True)] if _one_size(self.examples) else []
        return EvaluationReport(
            self.samples,
            metrics,
            usage,
            self._choices(notes),
            tuple(self.counts),
            (first[0], first[1]) if first else None,
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
        if self.features is not None:
            choices["frechet"] = {
                "name": self.features.name,
                "features": self.features.description,
                "reference": "the inputs of the same pictures",
                "samples": self.samples,
                "enough_samples": self.samples >= ENOUGH,
            }
        return choices | notes


def _one_size(examples: list[tuple[Tensor, Tensor]]) -> bool:
    return len({source.shape[1:] for source, _ in examples}) == 1


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
