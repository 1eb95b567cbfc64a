"""What codes of several lengths are worth, and what each item needs: of tokenizers whose codes can be cut.

Two questions, as ElasticTok (arXiv 2410.08368) asks them: what quality has everybody at a length, and what length has
everybody at a quality? The second is put beside the best length that is the same for all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmtok.codes import Codes
from mmtok.evaluation.density import packed_size, rank_correlation
from mmtok.evaluation.heldout import HeldOut, Signals
from mmtok.tokenizers.axis import cut, require_axis
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.budget import Found, Quality
from mmtok.tokenizers.fidelity import counting, fidelity_of
from mmtok.tokenizers.latents import Latents
from mmtok.tokenizers.predictor import LengthPredictor

DEFINITIONS = {
    "by_length": "all items at the same number of steps (positions or levels); psnr or snr in dB, mean over items",
    "met": "share of the items that have the wanted quality",
    "kept": "mean steps that items keep, each the fewest with which it has the quality, and with all longer ones tried",
    "tokens": "mean codes that those steps are",
    "fixed": "the fewest steps that, the same for all, give as large a share the quality; none where nobody has it",
    "crossed": "share of items of which some shorter code was good enough and a longer one was not",
    "predicted": "the same by the predictor of lengths, with its share of items that should be as good (confidence)",
    "rank_correlation": "Spearman's, of steps kept and the item's bytes as PNG (pictures) or FLAC (sounds); of levels, "
    "bytes a pixel or sample",
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


class _Table:
    """Quality and costs of items, by number of steps."""

    def __init__(self, quality: str, steps: Iterable[int]) -> None:
        self.quality = quality
        self.figures: dict[int, list[Tensor]] = {count: [] for count in sorted(set(steps))}
        self.costs: dict[int, list[Tensor]] = {count: [] for count in self.figures}

    def add(self, steps: int, figures: Tensor, codes: Codes, sizes: Sequence[int]) -> None:
        """What a batch reads from codes of vocabularies of these sizes, one a level."""
        self.figures[steps].append(figures.cpu())
        there = (codes.ids >= 0).sum(2).cpu()
        bits = (there * torch.tensor([np.log2(size) for size in sizes])).sum(1)
        self.costs[steps].append(torch.stack([there.sum(1).float(), bits], 1))

    def rows(self) -> tuple[dict[str, float], ...]:
        """As `Lengths.by_length`."""
        return tuple(self._row(steps) for steps in self.figures)

    def _row(self, steps: int) -> dict[str, float]:
        tokens, bits = torch.cat(self.costs[steps]).mean(0).tolist()
        figure = float(torch.cat(self.figures[steps]).double().mean())
        return {"steps": steps, "tokens": tokens, "bits": bits, self.quality: figure}

    def share(self, steps: int, target: float) -> float:
        """Of items that are as good as wanted."""
        return float((torch.cat(self.figures[steps]) >= target).double().mean())

    @property
    def items(self) -> int:
        """How many there were.

        Raises:
            ValueError: none.
        """
        count = sum(map(len, next(iter(self.figures.values()), [])))
        if not count:
            raise ValueError("There is nothing to measure: no signal came.")
        return count


class _Target:
    """One wanted quality, searched for and predicted, item by item."""

    def __init__(self, target: float, confidence: float) -> None:
        self.target, self.confidence = target, confidence
        self.found: list[Found] = []
        self.told: list[Tensor] = []

    def search(self, tokenizer: Tokenizer, x: Tensor, latents: Latents, quality: str) -> None:
        """Look for it in a batch."""
        wanted: dict[str, Any] = {quality: self.target}
        self.found.append(Quality(**wanted).search(tokenizer, x, latents))

    def predict(self, tokenizer: Tokenizer, x: Tensor, latents: Latents, predictor: LengthPredictor) -> None:
        """Ask the predictor, and see what comes of it."""
        figure, _ = fidelity_of(tokenizer.spec.modality)
        steps = predictor.choose(latents, self.target, self.confidence)
        codes = tokenizer.code(latents, **{require_axis(tokenizer): steps})
        good = figure(x, tokenizer.decode(codes), counting(latents.source_size, x)) >= self.target
        self.told.append(torch.stack([good, steps, (codes.ids >= 0).sum((1, 2))], 1).cpu())

    def result(self, table: _Table, sizes: Tensor) -> Searched:
        """Beside what the same length for all does; `sizes` tell how much there is in each item."""
        steps, met, crossed = (torch.cat([getattr(one, name) for one in self.found]).cpu() for name in _OF_ITEMS)
        reached = float(met.double().mean())
        enough = [count for count in table.figures if 0 < reached <= table.share(count, self.target)]
        return Searched(
            self.target,
            reached,
            float(steps.double().mean()),
            float(torch.cat([(one.codes.ids >= 0).sum((1, 2)) for one in self.found]).double().mean()),
            float(min(enough, default=float("nan"))),
            float(crossed.double().mean()),
            rank_correlation(steps, sizes),
            float(np.mean([one.decodes for one in self.found])),
            tuple(torch.bincount(steps).tolist()),
            Predicted(self.confidence, *torch.cat(self.told).double().mean(0).tolist()) if self.told else None,
        )


_OF_ITEMS = ("kept", "met", "crossed")
"""Fields of `Found`."""


@torch.inference_mode()
def measure_lengths(
    tokenizer: Tokenizer,
    batches: Iterable[Tensor],
    lengths: Sequence[int],
    targets: Sequence[float] = (),
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
        ValueError: codes cannot be cut, there is nothing to measure, or what comes back is no signal.
    """
    if tokenizer.gives != "signals":
        raise ValueError("texts have no signal-to-noise ratio. mmtok evaluate RUN tells how many bytes come back.")
    axis, spec = require_axis(tokenizer), tokenizer.spec
    figure, name = fidelity_of(spec.modality)
    table, wanted = _Table(name, lengths), [_Target(target, confidence) for target in targets]
    predictor = tokenizer.length_predictor
    sizes: list[float] = []
    with evaluating(tokenizer):
        for x in batches:
            latents = tokenizer.embed(x)
            within = counting(latents.source_size, x)
            for length in table.figures:
                codes = cut(tokenizer, latents, length)
                table.add(length, figure(x, tokenizer.decode(codes), within), codes, spec.codebook_sizes)
            for one in wanted:
                one.search(tokenizer, x, latents, name)
                if predictor is not None and predictor.fits:
                    one.predict(tokenizer, x, latents, predictor)
            # A longer sound has more codes at any number of levels, so levels follow how dense a sound is.
            share = x.shape[2:].numel() if axis == "levels" else 1
            sizes += [packed_size(signal, spec.sample_rate) / share for signal in x.cpu()]
    items = table.items
    return Lengths(axis, name, items, table.rows(), tuple(one.result(table, torch.tensor(sizes)) for one in wanted))


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
    table = _Table(name, digits)
    with evaluating(tokenizer):
        family = {count: tokenizer.prefix(count).eval() for count in table.figures}
        for x in batches:
            latents = tokenizer.embed(x)
            within = counting(latents.source_size, x)
            for count, small in family.items():
                codes = small.code(latents)
                table.add(count, figure(x, small.decode(codes), within), codes, small.spec.codebook_sizes)
    items = table.items
    return Lengths("digits", name, items, table.rows(), ())


def unpadded(held_out: HeldOut, device: str | torch.device) -> Iterator[Tensor]:
    """x of each batch; of sounds each by itself, without its padding."""
    for batch in Signals(held_out):
        x = batch["x"].to(device)
        if "lengths" not in batch:
            yield x
            continue
        for one, length in zip(x, batch["lengths"].tolist(), strict=True):
            yield one[None, ..., :length]
