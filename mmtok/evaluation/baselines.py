"""Codecs beside a tokenizer, at equal bits on the same pictures, by the same measures.

Each codec's quality is one number for the whole set: the highest whose mean bits a pixel do not exceed the tokenizer's.
A codec's file is counted whole, header included; a tokenizer's tokens have none, and are counted without entropy
coding. On small pictures headers are most of a file, so the cost of a flat picture is reported beside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mmtok.evaluation.codecs import Codec, library_versions
from mmtok.evaluation.comparison import Comparison, Examples, FeatureSet, Instruments, batches_of
from mmtok.tokenizers.pixels import to_uint8, to_unit

SEARCHED = 64
"""Pictures at least, spread over a larger set, on which a quality is found before the whole set corrects it."""

DEFINITIONS = {
    "equal_bits": "one quality for the whole set, the highest whose bits_per_pixel do not exceed the tokenizer's",
    "bits_per_pixel": "8 times the bytes of all files, headers included, over all pixels",
    "reached": "false where even the lowest quality takes more bits than the tokenizer; its figures are given then",
    "flat_bits_per_pixel": "the same for flat grey pictures of the same sizes, at the lowest quality: the headers",
}


@dataclass(frozen=True)
class CodecResult:
    """A codec at a tokenizer's bits."""

    codec: Codec
    quality: int
    bits_per_pixel: float
    flat_bits_per_pixel: float
    reached: bool
    metrics: dict[str, float]
    examples: Tensor | None
    """uint8 (N, C, H, W), the pictures of the report's examples."""

    def to_dict(self) -> dict[str, Any]:
        """As the report's file holds it."""
        return {
            "codec": self.codec.name,
            "quality": self.quality,
            "options": dict(self.codec.options),
            "bits_per_pixel": self.bits_per_pixel,
            "flat_bits_per_pixel": self.flat_bits_per_pixel,
            "reached": self.reached,
            "metrics": self.metrics,
        }


def choices() -> dict[str, Any]:
    """What would change the numbers of every codec."""
    return {"definitions": DEFINITIONS, "libraries": library_versions()}


@torch.inference_mode()
def measure_codecs(
    loader: Iterable[Mapping[str, Any]],
    codecs: Sequence[Codec],
    bits_per_pixel: float,
    *,
    instruments: Instruments,
    max_samples: int | None = None,
    examples: int = 8,
    every: int = 1,
) -> Iterator[CodecResult]:
    """Measure one codec after the other.

    Args:
        loader: of the pictures that the tokenizer was measured on; read several times, in the same order each time.
        codecs: which.
        bits_per_pixel: the tokenizer's.
        instruments: what measures.
        max_samples: pictures to measure at most, as for the tokenizer.
        examples: pictures to keep for a contact sheet, the same as `evaluate` keeps.
        every: one picture in so many may be kept.
    """

    def pictures() -> Iterator[Tensor]:
        for x in batches_of(loader, max_samples):
            yield to_uint8(to_unit(x)).cpu()

    sample = _spread(pictures())
    reference: FeatureSet | None = None
    for codec in codecs:
        quality, bits = find_quality(codec, sample, pictures, bits_per_pixel)
        comparison, kept = Comparison(instruments, reference), Examples(examples, every)
        for source in pictures():
            result = torch.stack(_map(_round_trip(codec, quality), source))
            comparison.update(source.to(instruments.device), result.to(instruments.device))
            kept.add(result)
        reference = comparison.reference
        rows = kept.stacked()
        yield CodecResult(
            codec,
            quality,
            bits,
            _bits([sample], codec.flat_bytes),
            bits <= bits_per_pixel,
            comparison.metrics(),
            rows[0] if rows else None,
        )


def find_quality(
    codec: Codec, sample: Sequence[Tensor], pictures: Callable[[], Iterable[Tensor]], most: float
) -> tuple[int, float]:
    """The highest quality of a codec within a budget, and its bits a pixel over all pictures.

    Args:
        codec: which.
        sample: some pictures (C, H, W), for a first guess.
        pictures: gives all pictures, in batches (B, C, H, W).
        most: bits a pixel allowed.

    Returns:
        The quality, the lowest there is where none is within the budget.
    """
    low, high = 0, len(codec.qualities) - 1
    while low < high:  # bits rise with quality, but for a wobble here and there
        middle = (low + high + 1) // 2
        size = _sizes(codec, codec.qualities[middle])
        low, high = (middle, high) if _bits([sample], size) <= most else (low, middle - 1)

    @cache
    def bits(place: int) -> float:
        return _bits(pictures(), _sizes(codec, codec.qualities[place]))

    place = low
    while place > 0 and bits(place) > most:
        place -= 1
    while place + 1 < len(codec.qualities) and bits(place) <= most and bits(place + 1) <= most:
        place += 1
    return codec.qualities[place], bits(place)


def _sizes(codec: Codec, quality: int) -> Callable[[Tensor], int]:
    return lambda picture: len(codec.encode(picture, quality))


def _round_trip(codec: Codec, quality: int) -> Callable[[Tensor], Tensor]:
    return lambda picture: codec.decode(codec.encode(picture, quality), len(picture))


def _bits(batches: Iterable[Iterable[Tensor]], size: Callable[[Tensor], int]) -> float:
    """8 times the bytes of all pictures (C, H, W), over their pixels."""
    total, pixels = 0, 0
    for batch in batches:
        pictures = list(batch)
        total += sum(_map(size, pictures))
        pixels += sum(picture.shape[1] * picture.shape[2] for picture in pictures)
    return 8 * total / pixels


def _map(function: Callable[[Tensor], Any], pictures: Iterable[Tensor]) -> list[Any]:
    """In as many threads as torch may use: encoders release the interpreter."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return list(pool.map(function, pictures))


def _spread(batches: Iterable[Tensor]) -> list[Tensor]:
    """From `SEARCHED` to twice as many pictures, evenly spread, of a stream whose length is not known."""
    kept: list[Tensor] = []
    every = 1
    for place, picture in enumerate(x for batch in batches for x in batch):
        if place % every == 0:
            kept.append(picture)
            if len(kept) == 2 * SEARCHED:
                kept, every = kept[::2], 2 * every
    return kept
