"""Names, units and digits of figures, as a reader wants them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple


class Figure(NamedTuple):
    """How a figure is called."""

    title: str
    unit: str = ""


FIGURES: dict[str, Figure] = {
    "psnr": Figure("PSNR", "dB"),
    "ssim": Figure("SSIM"),
    "LPIPS-alex": Figure("LPIPS (alex)"),
    "LPIPS-vgg": Figure("LPIPS (vgg)"),
    "FD-EffLite0": Figure("FD (EffLite0)"),
    "KID-EffLite0": Figure("KID (EffLite0)"),
    "mae": Figure("mean absolute error"),
    "high_frequency_ratio": Figure("fine detail kept"),
    "si_sdr": Figure("SI-SDR", "dB"),
    "mel": Figure("mel distance"),
    "stft": Figure("STFT distance"),
    "pesq": Figure("PESQ"),
    "stoi": Figure("STOI"),
    "dnsmos": Figure("DNSMOS"),
    "quantization_gap": Figure("quantization gap", "dB"),
    "mse": Figure("error of standardised channels"),
    "collision_rate": Figure("items that collide"),
    "collisions_beyond_duplicates": Figure("collisions beyond equal vectors"),
    "max_group": Figure("largest group of equal codes"),
    "slots_per_item": Figure("slots an item"),
    "knn_recall": Figure("10 nearest found by codes"),
    "stability": Figure("neighbours that another seed shares"),
    "bits_per_pixel": Figure("bits a pixel"),
    "bits_per_second": Figure("bits a second"),
    "bits_per_sample": Figure("bits an item"),
    "tokens_per_sample": Figure("tokens an item"),
    "tokens_per_image": Figure("tokens a picture"),
    "tokens_per_second": Figure("tokens a second"),
    "unigram_bits_per_sample": Figure("bits an item, by frequency"),
    "prior_bits_per_sample": Figure("bits an item, under the prior"),
    "prior_flops_per_sample": Figure("FLOPs an item, of the prior"),
    "linear_accuracy": Figure("linear probe on values"),
    "transformer_accuracy": Figure("transformer probe on ids"),
    "raw_linear_accuracy": Figure("linear probe on the input"),
    "raw_transformer_accuracy": Figure("transformer probe on the input"),
    "active": Figure("codes in use"),
    "active_of_expected": Figure("codes in use, of what even use shows"),
    "active_expected": Figure("codes in use, of what even use shows"),
    "perplexity_norm": Figure("perplexity / codebook size"),
    "evenness": Figure("evenness (1 - Gini)"),
    "top1_share": Figure("share of the commonest code"),
    "usage_active": Figure("codes in use"),
    "usage_of_expected": Figure("codes in use, of what even use shows"),
    "usage_perplexity_norm": Figure("perplexity / codebook size"),
    "tokens_per_code": Figure("tokens a code"),
    "bit_correlation_max": Figure("correlation of two bits, at most"),
    "bit_entropy_mean": Figure("entropy of a bit"),
    "joint_entropy": Figure("entropy of the ids", "bits"),
    "bits_lost_to_dependence": Figure("bits lost to dependence"),
    "step_seconds": Figure("time an update", "s"),
    "peak_gib": Figure("memory in training", "GiB"),
    "encode_seconds_per_sample": Figure("time to encode an item", "s"),
    "parameters": Figure("parameters"),
    "bytes_per_token": Figure("bytes a token"),
    "characters_per_token": Figure("characters a token"),
    "exact": Figure("texts that come back exactly"),
    "bits_per_byte": Figure("bits a byte"),
    "fallback_share": Figure("tokens that are single bytes beyond ASCII"),
    "worst_language": Figure("bytes a token, worst language"),
    "worst_parity": Figure("parity, worst language"),
    "vocabulary": Figure("tokens in the vocabulary"),
    "vocabulary_used": Figure("tokens in use"),
    "unreached": Figure("tokens that cannot be reached"),
    "renyi_efficiency": Figure("Renyi efficiency"),
    "encode_mb_per_second": Figure("encoding", "MB/s"),
}
"""Figures that have a name of their own; others are called by their key."""


LEVELS, GAIN = "snr_levels_", "snr_gain_level_"
"""Start of the names of figures with the number of a level."""
NUMBERED = {
    re.compile(rf"{LEVELS}(\d+)$"): Figure("SNR of levels 1 to {}", "dB"),
    re.compile(rf"{GAIN}(\d+)$"): Figure("gain of level {}", "dB"),
    re.compile(r"psnr_length_(\d+)$"): Figure("PSNR of length {}", "dB"),
    re.compile(r"snr_length_(\d+)$"): Figure("SNR of length {}", "dB"),
    re.compile(r"psnr_digits_(\d+)$"): Figure("PSNR of {} digits", "dB"),
    re.compile(r"snr_digits_(\d+)$"): Figure("SNR of {} digits", "dB"),
    re.compile(r"tokens_for_(.+)_db$"): Figure("tokens an item for {} dB"),
    re.compile(r"met_(.+)_db$"): Figure("items with {} dB"),
}
"""Figures with a number in their name."""


def title(name: str) -> str:
    """Of a figure, without its unit."""
    return _figure(name).title


def titled(name: str) -> str:
    """Of a figure, with its unit."""
    known = _figure(name)
    return f"{known.title} ({known.unit})" if known.unit else known.title


def _figure(name: str) -> Figure:
    for pattern, figure in NUMBERED.items():
        if match := pattern.match(name):
            return figure._replace(title=figure.title.format(match[1]))
    return FIGURES.get(name, Figure(name.replace("_", " ")))


def number(value: float | None) -> str:
    """Four digits, or all of a whole number."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    for scale, sign in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if scale <= size < 1e15:
            return f"{value / scale:.3g} {sign}" if size < 1000 * scale else f"{value / scale:,.0f} {sign}"
    if size >= 1e15 or size < 1e-4:
        return f"{value:.2e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(size)))}f}" if value != int(value) else f"{value:.0f}"


def spread(mean: float, half: float | None) -> tuple[str, str]:
    """A mean and half its interval, both to the interval's second digit; "" for none, or one of no width."""
    if half is None or not math.isfinite(half) or half == 0:
        return number(mean), ""
    if max(abs(mean), half) >= 1e7 or max(abs(mean), half) < 1e-3:
        return number(mean), f"{half:.1e}".replace("e+0", "e").replace("e-0", "e-")
    digits = min(4, max(0, 1 - math.floor(math.log10(half))))
    if max(abs(mean), half) < 1:
        digits = max(digits, 2)
    return f"{mean:,.{digits}f}", f"{half:,.{digits}f}"


def thin(values: list[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most so many points of a curve, evenly in their order, its ends kept.

    Of each stretch the point furthest from the stretch's mean stays: a spike is what a reader looks for.
    """
    if len(values) <= max(most, 3):
        return values
    inner, kept = values[1:-1], [values[0]]
    size = len(inner) / (most - 2)
    for i in range(most - 2):
        part = inner[round(i * size) : round((i + 1) * size)]
        if part:
            mean = sum(value for _, value in part) / len(part)
            kept.append(max(part, key=lambda point: abs(point[1] - mean)))
    return [*kept, values[-1]]
