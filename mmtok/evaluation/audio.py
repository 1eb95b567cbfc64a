"""Measures a tokenizer of sounds on held-out clips, with all its levels and with only the first ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from math import log2
from typing import Any, TypeVar

import torch
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.evaluation.audio_metrics import DEFINITIONS, SoundMetrics
from mmtok.evaluation.audio_quality import Group, Quality, groups_of
from mmtok.evaluation.finite import require_finite
from mmtok.evaluation.report import CodeCounts, EvaluationReport, machine
from mmtok.evaluation.speech_metrics import DNSMOS, Judgement, build_judges, definitions
from mmtok.tokenizers.base import Tokenizer, evaluating

T = TypeVar("T")

OWN_DEFINITIONS = {
    "si_sdr_bypass": "si_sdr of the decoded latents, not rounded to codes",
    "quantization_gap": "si_sdr_bypass minus si_sdr, in dB",
    "dnsmos_input": "dnsmos of what went in",
    "bits_per_second": "tokens times log2 of their codebook's size, over the length of the clips; no entropy coding",
    "tokens_per_second": "codes of all levels, over the length of the clips; frames are counted whole",
    "entropy": "bits of a level: entropy of how often each code occurs, over all clips; low where tokens are few",
    "bitrate_efficiency": "sum of the levels' entropies over the sum of log2 of their codebooks' sizes (DAC)",
    "real_time_factor": (
        "seconds of sound over seconds of computing, above 1 is faster than real time; over all clips, those of a "
        "batch that are equally long together, after one pass to warm up"
    ),
    "by_levels": "the same clips decoded from their first levels alone; bits_per_second of those levels",
}


@torch.inference_mode()
def evaluate_audio(
    tokenizer: Tokenizer,
    loader: Iterable[Mapping[str, Any]],
    *,
    device: torch.device | str = "cpu",
    max_samples: int | None = None,
    judge_every: int = 1,
    examples: int = 6,
    every: int = 1,
    notes: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Encode and decode every clip of a loader and measure the result, in float32 and in evaluation mode.

    Args:
        tokenizer: of sounds; moved to the device.
        loader: batches with "x" (B, C, S) in [-1, 1], and "lengths" (B,) where padded.
        device: where to compute.
        max_samples: clips to measure at most, the first of the loader.
        judge_every: one clip in so many is given to PESQ, STOI and DNSMOS, which are slow; 0 gives none.
        examples: clips to keep for pictures.
        every: one clip in so many may be kept.
        notes: what the caller knows and a reader needs. Written under `choices`.

    Raises:
        ValueError: the loader gave no clip.
    """
    tokenizer.to(device)
    run = _Evaluation(tokenizer, torch.device(device), judge_every, examples, every)
    with evaluating(tokenizer):
        for group in groups_of(loader, run.device, max_samples):
            run.add(group)
    if not run.samples:
        raise ValueError("There is nothing to evaluate: the loader gave no clip. Check the validation shards.")
    return run.report(dict(notes or {}))


class _Evaluation:
    """The sums of one evaluation."""

    def __init__(self, tokenizer: Tokenizer, device: torch.device, judge_every: int, examples: int, every: int) -> None:
        self.tokenizer, self.device, self.spec = tokenizer, device, tokenizer.spec
        assert self.spec.sample_rate is not None
        self.rate = self.spec.sample_rate
        judges, self.absent = build_judges(wanted=judge_every > 0)
        self.judges = judges
        self.whole = Quality(self.rate, device, judges, judge_every)
        self.input = Judgement([judge for judge in judges if isinstance(judge, DNSMOS)])
        with_reference = [judge for judge in judges if not isinstance(judge, DNSMOS)]
        self.fewer = {
            k: Quality(self.rate, device, with_reference, judge_every) for k in budgets(tokenizer.quantizer.depth)
        }
        self.kept: dict[int, list[int]] = {}
        self.bypass = SoundMetrics(self.rate, device)
        self.counts = CodeCounts(self.spec.codebook_sizes)
        self.samples = self.positions = self.length = 0
        self.seconds = {"encode": 0.0, "decode": 0.0}
        self.round_trip = 0.0
        self.wanted, self.every = examples, every
        self.clips: list[tuple[Tensor, Tensor]] = []

    def add(self, group: Group) -> None:
        x, size = group.x, (group.x.shape[2],)
        latents = self.tokenizer.embed(x)
        y = self._coded(x) if self.counts.levels else self.tokenizer(x).x  # without codes nothing is rounded
        self.whole.update(group, require_finite(y))
        for clip in self.whole.judged(group):
            self.input.update(clip, clip, self.rate)
        self.bypass.update(x, self.tokenizer.bypass(latents, size))
        for k, quality in self.fewer.items():
            levels = self.tokenizer.kept_levels(len(x), k)
            ids = self.tokenizer.quantizer.encode(latents.z, latents.mask, grid=latents.grid, levels=levels)
            self.kept[k] = [level for level, first in enumerate(ids[0, :, 0].tolist()) if first >= 0]
            quality.update(group, require_finite(self.tokenizer.decode(replace(self.codes, ids=ids))))
        self.samples += len(x)
        self.positions += latents.z.shape[0] * latents.z.shape[1]
        self.length += x.shape[0] * x.shape[2]
        for number, *pair in zip(group.numbers, x, y, strict=True):
            if number % self.every == 0 and len(self.clips) < self.wanted:
                self.clips.append((pair[0].cpu(), pair[1].cpu()))

    def _coded(self, x: Tensor) -> Tensor:
        """What a user gets, who has the ids and nothing else; timed."""
        if not self.samples:
            forward = self.tokenizer(x).x
            decoded = self.tokenizer.decode(self.tokenizer.encode(x))  # also warms up
            self.round_trip = float((forward - decoded).abs().max())
        self.codes: Codes = self._timed("encode", lambda: self.tokenizer.encode(x.clamp(-1, 1)))
        self.counts.update(self.codes.ids)
        return self._timed("decode", lambda: self.tokenizer.decode(self.codes))

    def _timed(self, what: str, act: Callable[[], T]) -> T:
        self._wait()
        start = time.perf_counter()
        result = act()
        self._wait()
        self.seconds[what] += time.perf_counter() - start
        return result

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def report(self, notes: dict[str, Any]) -> EvaluationReport:
        length = self.length / self.rate
        metrics = self.whole.metrics()
        metrics |= {f"{name}_input": value for name, value in self.input.result().items()}
        metrics["si_sdr_bypass"] = self.bypass.result()["si_sdr"]
        metrics["quantization_gap"] = metrics["si_sdr_bypass"] - metrics["si_sdr"]
        usage = self.counts.usage()
        if self.counts.levels:
            frames = self.positions / length
            metrics |= {
                "bits_per_second": self.spec.bits_per_position * frames,
                "tokens_per_second": len(self.spec.codebook_sizes) * frames,
                **{f"real_time_factor_{what}": length / seconds for what, seconds in self.seconds.items()},
            }
            usage = [level | entropy(level) for level in usage]
            if len(usage) == len(self.counts.levels):  # none was too large to be counted
                bits = sum(log2(size) for size in self.spec.codebook_sizes)
                metrics["bitrate_efficiency"] = sum(level["entropy"] for level in usage) / bits if bits else 1.0
        clips = tuple(zip(*self.clips, strict=True))
        return EvaluationReport(
            self.samples,
            metrics,
            usage,
            self._choices(notes, length),
            tuple(self.counts.levels),
            clips=(clips[0], clips[1]) if clips else None,
            by_levels=tuple(self._rows(self.positions / length)),
        )

    def _rows(self, frames: float) -> list[dict[str, Any]]:
        """One for each number of levels, the last with all."""
        if not self.fewer:
            return []
        rows = [
            {"levels": k, "bits_per_second": frames * bits_of(self.spec, self.kept[k]), **quality.metrics()}
            for k, quality in self.fewer.items()
        ]
        whole = {"levels": self.tokenizer.quantizer.depth, "bits_per_second": frames * self.spec.bits_per_position}
        return [*rows, whole | self.whole.metrics()]

    def _choices(self, notes: dict[str, Any], length: float) -> dict[str, Any]:
        choices: dict[str, Any] = {
            "definitions": DEFINITIONS | definitions(self.judges, self.absent) | OWN_DEFINITIONS,
            "absent": self.absent,
            "samples": self.samples,
            "seconds": length,
            "sample_rate": self.rate,
            "judged_clips": self.whole.judgement.clips(),
            "round_trip_max_difference": self.round_trip,
            "threads": torch.get_num_threads(),
        }
        return choices | machine(self.device) | notes


def budgets(depth: int) -> list[int]:
    """Numbers of levels, below all of them, at which quality is measured: each up to 8, then powers of two."""
    return [k for k in range(1, depth) if k <= 8 or k & (k - 1) == 0]


def bits_of(spec: CodeSpec, levels: Iterable[int]) -> float:
    """Bits of a position that has codes of these levels alone."""
    strides = spec.stride or (1,) * len(spec.codebook_sizes)
    return sum(log2(spec.codebook_sizes[level]) / strides[level] for level in levels)


def entropy(level: Mapping[str, Any]) -> dict[str, float]:
    """Bits a code of a level carries, and how much of what it takes that is; from its usage."""
    bits = log2(level["size"])
    return {"entropy": level["entropy_norm"] * bits, "efficiency": level["entropy_norm"]}
