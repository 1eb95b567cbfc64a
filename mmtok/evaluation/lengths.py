"""What codes of several lengths are worth, and what each item needs: of tokenizers whose codes can be cut.

Two questions, as ElasticTok (arXiv 2410.08368) asks them: what quality has everybody at a length, and what length has
everybody at a quality? The second is put beside the best length that is the same for all.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmtok.evaluation.heldout import HeldOut, Signals
from mmtok.tokenizers.axis import cut, require_axis
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.budget import Quality
from mmtok.tokenizers.fidelity import counting, fidelity_of

DEFINITIONS = {
    "by_length": "all items at the same number of steps (positions or levels); psnr or snr in dB, mean over items",
    "met": "share of the items that have the wanted quality",
    "kept": "mean steps that items keep, each the fewest with which it has the quality, and with all longer ones tried",
    "tokens": "mean codes that those steps are",
    "fixed": "the fewest steps that, the same for all, give as large a share the quality; none where nobody has it",
    "crossed": "share of items of which some shorter code was good enough and a longer one was not",
    "predicted": "the same by the predictor of lengths, with its share of items that should be as good (confidence)",
    "rank_correlation": "Spearman's, of steps kept and the bytes of the item as PNG (pictures) or FLAC (sounds)",
    "decodes": "passes of the decoder that a search took, beside one without",
}


class Predicted(NamedTuple):
    """What the predictor of lengths makes of a wanted quality."""

    confidence: float
    met: float
    kept: float
    tokens: float


class Searched(NamedTuple):
    """What a wanted quality takes."""

    target: float
    """dB."""
    met: float
    kept: float
    tokens: float
    fixed: float
    crossed: float
    rank_correlation: float
    """NaN where all items keep the same."""
    decodes: float
    """A batch, mean."""
    counts: tuple[int, ...]
    """Items by steps kept, 0 .. all."""
    predicted: Predicted | None = None
    """Without decoding, where the tokenizer has a predictor."""


@dataclass(frozen=True)
class Lengths:
    """Both answers."""

    axis: str
    """Along what codes are cut: positions or levels; or digits, whose leading ones are a smaller vocabulary."""
    quality: str
    """psnr or snr."""
    samples: int
    by_length: tuple[dict[str, float], ...]
    """For each number of steps: `steps`, `tokens` and `bits` of an item, and the quality."""
    searched: tuple[Searched, ...]

    def to_dict(self) -> dict[str, Any]:
        """For a report."""
        rows = [
            one._asdict()
            | {"counts": list(one.counts), "predicted": one.predicted._asdict() if one.predicted else None}
            for one in self.searched
        ]
        plain = {"axis": self.axis, "quality": self.quality, "samples": self.samples}
        return plain | {"by_length": list(self.by_length), "searched": rows, "definitions": DEFINITIONS}


@torch.inference_mode()
def measure_lengths(
    tokenizer: Tokenizer,
    batches: Iterable[Tensor],
    lengths: Sequence[int],
    targets: Sequence[float],
    *,
    confidence: float = Quality.confidence,
) -> Lengths:
    """Decode every item at each length, and search for the length of each target.

    Args:
        tokenizer: whose codes can be cut (`Tokenizer.axis`).
        batches: signals x of one size each, as `encode` takes them.
        lengths: steps of the axis, the same for all items.
        targets: wanted qualities in dB: PSNR of pictures, signal to noise of sounds.
        confidence: of the predictor of lengths, where there is one that fits.

    Raises:
        ValueError: codes cannot be cut, or there is nothing to measure.
    """
    axis = require_axis(tokenizer)
    figure, name = fidelity_of(tokenizer.spec.modality)
    table: dict[int, list[Tensor]] = {length: [] for length in sorted(set(lengths))}
    costs: dict[int, list[Tensor]] = {length: [] for length in table}
    kept: dict[float, list[Any]] = {target: [] for target in targets}
    predictor = tokenizer.length_predictor
    if predictor is not None and not predictor.fits:
        predictor = None
    told: dict[float, list[Tensor]] = {target: [] for target in targets}
    sizes: list[int] = []
    spec = tokenizer.spec
    bits = torch.tensor([np.log2(size) for size in spec.codebook_sizes])
    with evaluating(tokenizer):
        for x in batches:
            latents = tokenizer.embed(x)
            within = counting(latents.source_size, x)
            for length in table:
                codes = cut(tokenizer, latents, length)
                table[length].append(figure(x, tokenizer.decode(codes), within).cpu())
                there = (codes.ids >= 0).sum(2).cpu()
                costs[length].append(torch.stack([there.sum(1).float(), (there * bits).sum(1)], 1))
            for target in targets:
                wanted: dict[str, Any] = {name: target}
                kept[target].append(Quality(**wanted).search(tokenizer, x, latents))
                if predictor is not None:
                    steps = predictor.choose(latents, target, confidence)
                    codes = tokenizer.code(latents, **{axis: steps})
                    good = figure(x, tokenizer.decode(codes), within) >= target
                    told[target].append(torch.stack([good, steps, (codes.ids >= 0).sum((1, 2))], 1).cpu())
            sizes += [packed_size(one, spec.sample_rate) for one in x.cpu()]
    if not sizes:
        raise ValueError("There is nothing to measure: no signal came.")
    figures = {length: torch.cat(rows) for length, rows in table.items()}
    rows = [_row(length, figures[length], torch.cat(costs[length]), name) for length in figures]
    searched = [
        _searched(target, found, figures, torch.tensor(sizes))._replace(
            predicted=Predicted(confidence, *torch.cat(told[target]).double().mean(0).tolist()) if predictor else None
        )
        for target, found in kept.items()
    ]
    return Lengths(axis, name, len(sizes), tuple(rows), tuple(searched))


@torch.inference_mode()
def measure_digits(tokenizer: Tokenizer, batches: Iterable[Tensor], digits: Sequence[int]) -> Lengths:
    """Decode every item from the leading digits of its codes: what a smaller vocabulary is worth.

    Args:
        tokenizer: whose quantizer's codes have digits.
        batches: signals x of one size each, as `encode` takes them.
        digits: how many, the same for all items.

    Raises:
        ValueError: codes have not as many digits, or there is nothing to measure.
    """
    figure, name = fidelity_of(tokenizer.spec.modality)
    family = {count: tokenizer.prefix(count) for count in sorted(set(digits))}
    quality: dict[int, list[Tensor]] = {count: [] for count in family}
    costs: dict[int, list[Tensor]] = {count: [] for count in family}
    with evaluating(tokenizer):
        for x in batches:
            latents = tokenizer.embed(x)
            within = counting(latents.source_size, x)
            for count, small in family.items():
                codes = small.eval().code(latents)
                quality[count].append(figure(x, small.decode(codes), within).cpu())
                tokens = (codes.ids >= 0).sum((1, 2)).cpu().float()
                costs[count].append(torch.stack([tokens, tokens * np.log2(small.spec.codebook_sizes[0])], 1))
    samples = sum(map(len, next(iter(quality.values()), [])))
    if not samples:
        raise ValueError("There is nothing to measure: no signal came.")
    rows = [_row(count, torch.cat(quality[count]), torch.cat(costs[count]), name) for count in family]
    return Lengths("digits", name, samples, tuple(rows), ())


def unpadded(held_out: HeldOut, device: str | torch.device) -> Iterator[Tensor]:
    """x of each batch; of sounds each by itself, without its padding."""
    for batch in Signals(held_out):
        x = batch["x"].to(device)
        if "lengths" not in batch:
            yield x
            continue
        for one, length in zip(x, batch["lengths"].tolist(), strict=True):
            yield one[None, ..., :length]


def _row(length: int, quality: Tensor, costs: Tensor, name: str) -> dict[str, float]:
    tokens, bits = costs.mean(0).tolist()
    return {"steps": length, "tokens": tokens, "bits": bits, name: float(quality.double().mean())}


def _searched(target: float, found: Sequence[Any], quality: dict[int, Tensor], sizes: Tensor) -> Searched:
    steps = torch.cat([one.kept for one in found]).cpu()
    met = float(torch.cat([one.met for one in found]).double().mean())
    crossed = float(torch.cat([one.crossed for one in found]).double().mean())
    shares = {length: float((reached >= target).double().mean()) for length, reached in quality.items()}
    enough = [length for length, share in shares.items() if 0 < met <= share]
    return Searched(
        target,
        met,
        float(steps.double().mean()),
        float(torch.cat([(one.codes.ids >= 0).sum((1, 2)) for one in found]).double().mean()),
        float(min(enough, default=float("nan"))),
        crossed,
        rank_correlation(steps, sizes),
        float(np.mean([one.decodes for one in found])),
        tuple(torch.bincount(steps).tolist()),
    )


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, with ties at their mean rank; NaN where one side is constant."""
    from scipy.stats import spearmanr

    if bool((a == a[0]).all()) or bool((b == b[0]).all()):
        return float("nan")
    return float(spearmanr(a.numpy(), b.numpy()).statistic)


def packed_size(x: Tensor, rate: int | None) -> int:
    """Bytes of one signal (C, ...) as PNG, or of a sound as FLAC of 16 bits: how much there is in it, roughly."""
    file = io.BytesIO()
    if rate is None:
        from mmtok.tokenizers.pixels import to_pil

        to_pil(x[None])[0].save(file, "png", optimize=True)
    else:
        import soundfile

        soundfile.write(file, x.T.numpy(), rate, format="FLAC", subtype="PCM_16")
    return len(file.getvalue())


def rows_by_length(found: Lengths) -> list[str]:
    """Lines of a table: what a length is worth."""
    name = found.quality
    cells = [[found.axis, "tokens", "bits", f"{name} dB"]]
    cells += [
        [f"{row['steps']:.0f}", f"{row['tokens']:,.1f}", f"{row['bits']:,.0f}", f"{row[name]:.2f}"]
        for row in found.by_length
    ]
    return _aligned(cells)


def rows_of_search(found: Lengths) -> list[str]:
    """Lines of a table: what a quality takes."""
    cells = [
        [f"{found.quality} dB", "met", "kept", "tokens", "the same for all", "crossed", "rank correlation", "decodes"]
    ]
    for one in found.searched:
        ranks = "-" if one.rank_correlation != one.rank_correlation else f"{one.rank_correlation:.2f}"
        cells.append(
            [f"{one.target:g}", f"{one.met:.1%}", f"{one.kept:.1f}", f"{one.tokens:,.1f}",
             "-" if one.fixed != one.fixed else f"{one.fixed:.0f}",
             f"{one.crossed:.1%}", ranks, f"{one.decodes:.1f}"]
        )  # fmt: skip
    return _aligned(cells)


def rows_of_prediction(found: Lengths) -> list[str]:
    """Lines of a table: what the predictor makes of it; none without one."""
    told = [(one.target, one.predicted) for one in found.searched if one.predicted]
    if not told:
        return []
    cells = [[f"{found.quality} dB", "met", "kept", "tokens", "decodes"]]
    cells += [[f"{target:g}", f"{one.met:.1%}", f"{one.kept:.1f}", f"{one.tokens:,.1f}", "0"] for target, one in told]
    return [f"predicted, confidence {told[0][1].confidence:g}", *_aligned(cells)]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
