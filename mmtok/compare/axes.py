"""What each figure is, which way is better, and the table it stands in."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import NamedTuple


class Axis(NamedTuple):
    """How a figure is read."""

    higher: bool | None
    """Whether more is better; None where neither is."""
    what: str


AXES: dict[str, Axis] = {
    "psnr": Axis(True, "dB, mean over pictures"),
    "ssim": Axis(True, "structural similarity"),
    "LPIPS-*": Axis(False, "perceptual distance"),
    "FD-*": Axis(False, "Frechet distance of the features of that name; no FID"),
    "KID-*": Axis(False, "kernel distance of the same features"),
    "si_sdr": Axis(True, "dB"),
    "mel": Axis(False, "mel distance"),
    "pesq": Axis(True, "MOS-LQO"),
    "stoi": Axis(True, "short-time objective intelligibility"),
    "byte_accuracy": Axis(True, "share of bytes that come back"),
    "exact_pieces": Axis(True, "share of pieces of 32 bytes that come back whole"),
    "exact": Axis(True, "share of texts that come back whole"),
    "byte_accuracy_levels_*": Axis(True, "of texts decoded from so many levels"),
    "bits_per_byte": Axis(None, "log2 of the codebooks' sizes over the bytes of a text"),
    "unigram_bits_per_byte": Axis(False, "by how often each code occurs"),
    "exact_bits_per_byte": Axis(False, "of codes, and of what is missing by the decoder's probabilities"),
    "prior_bits_per_byte": Axis(False, "of codes under the small autoregressive model"),
    "quantization_gap": Axis(False, "what not rounding would add: dB, of texts a share of bytes"),
    "bits_per_pixel": Axis(None, "log2 of the codebooks' sizes over a picture's tokens, over its pixels"),
    "bits_per_second": Axis(None, "log2 of the codebooks' sizes over a clip's tokens, over its length"),
    "bits_per_sample": Axis(None, "log2 of the codebooks' sizes over an item's tokens"),
    "tokens_per_sample": Axis(None, "codes of all levels of an item"),
    "prior_bits_per_sample": Axis(False, "what is left of them under the small autoregressive model"),
    "prior_flops_per_sample": Axis(False, "of that model, to generate one item"),
    "unigram_bits_per_sample": Axis(False, "by how often each code occurs"),
    "linear_accuracy": Axis(True, "of a linear model on values"),
    "neighbour_accuracy": Axis(True, "of the ten nearest training items by values"),
    "transformer_accuracy": Axis(True, "of a small transformer on ids"),
    "active": Axis(True, "share of codes that occur, least of the levels"),
    "active_of_expected": Axis(True, "the same over what uniform use would touch"),
    "perplexity_norm": Axis(True, "perplexity over codebook size, least of the levels"),
    "snr_levels_*": Axis(True, "dB of items decoded from so many levels"),
    "snr_gain_level_*": Axis(None, "dB that this level added"),
    "psnr_length_*": Axis(True, "dB of pictures decoded from so many steps of their codes"),
    "snr_length_*": Axis(True, "dB of other signals, alike"),
    "psnr_digits_*": Axis(True, "dB of pictures decoded from so many leading digits of each code"),
    "snr_digits_*": Axis(True, "dB of other signals, alike"),
    "tokens_for_*_db": Axis(False, "codes of an item, the fewest that have the quality"),
    "met_*_db": Axis(True, "share of the items that have it with all their codes"),
    "bit_correlation_max": Axis(False, "of a pair of bits of the ids"),
    "bits_lost_to_dependence": Axis(False, "sum of the bits' entropies less that of the ids"),
    "joint_entropy": Axis(None, "of the ids, in bits, corrected for few samples"),
    "usage_active": Axis(True, "share of codes that occur among so many tokens a code"),
    "usage_of_expected": Axis(True, "the same over what uniform use would touch"),
    "usage_perplexity_norm": Axis(True, "perplexity over codebook size"),
    "step_seconds": Axis(False, "median of an update"),
    "peak_gib": Axis(False, "memory of the training process"),
    "parameters": Axis(None, "of the tokenizer"),
}
"""Figure, or a pattern of several -> how it is read."""
GROUPS = {
    "Distortion": (
        "psnr", "ssim", "LPIPS-*", "FD-*", "si_sdr", "mel", "pesq", "stoi", "byte_accuracy", "exact_pieces", "exact",
        "quantization_gap",
    ),
    "Rate": (
        "bits_per_pixel", "bits_per_second", "bits_per_byte", "tokens_per_sample", "bits_per_sample",
        "unigram_bits_per_sample", "unigram_bits_per_byte", "exact_bits_per_byte",
    ),
    "Generability": ("prior_bits_per_sample", "prior_bits_per_byte", "prior_flops_per_sample"),
    "Understanding": (
        "linear_accuracy", "neighbour_accuracy", "transformer_accuracy", "raw_linear_accuracy",
        "raw_transformer_accuracy",
    ),
    "Levels": ("snr_levels_*", "snr_gain_level_*", "byte_accuracy_levels_*"),
    "Lengths": (
        "psnr_length_*", "snr_length_*", "psnr_digits_*", "snr_digits_*", "tokens_for_*_db", "met_*_db",
    ),
    "Bits": ("bit_correlation_max", "bit_entropy_mean", "joint_entropy", "bits_lost_to_dependence"),
    "Usage": ("active", "active_of_expected", "perplexity_norm"),
    "Occupancy": ("tokens_per_code", "usage_active", "usage_of_expected", "usage_perplexity_norm"),
    "Cost": ("step_seconds", "peak_gib", "parameters", "encode_seconds_per_sample"),
}  # fmt: skip
"""Table -> its columns, where a cell has them."""


def axis_of(figure: str) -> Axis | None:
    """How a figure is read; None where nothing is said of it."""
    return next((axis for pattern, axis in AXES.items() if fnmatchcase(figure, pattern)), None)


def columns_of(group: str, figures: Iterable[str]) -> list[str]:
    """The figures of a table, in its order."""
    names = list(figures)
    return [name for pattern in GROUPS[group] for name in names if fnmatchcase(name, pattern) and "_std" not in name]
