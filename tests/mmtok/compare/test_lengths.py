"""The measure `lengths` of a comparison."""

import json
from types import SimpleNamespace

import pytest
import torch

from mmtok.compare.axes import axis_of, columns_of
from mmtok.compare.measures import MEASURES, options_of
from mmtok.report.numbers import titled
from mmtok.tokenizers import build_tokenizer

ENCODER = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 6}


class HeldOut:
    """Pictures as a validation set has them."""

    module = SimpleNamespace(to_signal=lambda x: x)

    def __iter__(self):
        yield {"x": torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1}


def measured(nested, quantizer=None, **asked):
    torch.manual_seed(0)
    block = {"name": "image_1d", "dim": 8, "image_size": 16, "encoder": ENCODER, "nested": nested}
    tokenizer = build_tokenizer(block, quantizer or {"name": "vq", "codebook_size": 16}).eval()
    subject = SimpleNamespace(tokenizer=tokenizer, device=torch.device("cpu"), held_out=lambda samples: HeldOut())
    return MEASURES["lengths"].measure(subject, asked)


def test_what_lengths_are_worth_and_qualities_take_are_figures():
    found = measured("uniform", targets="-9,99")
    figures = found["figures"]
    assert [name for name in figures if "length" in name] == [f"psnr_length_{k}" for k in (1, 2, 4, 6)]
    assert (figures["tokens_for_-9_db"], figures["met_-9_db"]) == (1, 1)
    assert (figures["tokens_for_99_db"], figures["met_99_db"]) == (6, 0)
    assert sorted(columns_of("Lengths", figures)) == sorted(figures)
    assert all(axis_of(name) for name in figures)
    assert titled("tokens_for_99_db") == "tokens an item for 99 dB"
    json.dumps(found, allow_nan=False)  # the rank correlation of equal lengths is none


def test_vocabularies_that_nest_are_figures_by_digits():
    figures = measured("none", {"name": "lfq", "bits": 3, "dropout": 0.5})["figures"]
    assert list(figures) == [f"psnr_digits_{count}" for count in (1, 2, 3)]
    assert sorted(columns_of("Lengths", figures)) == sorted(figures)
    assert titled("psnr_digits_2") == "PSNR of 2 digits (dB)"


def test_codes_of_one_length_have_none():
    assert measured("none") == {"figures": {}, "absent": "codes have one length"}


def test_targets_are_numbers():
    assert options_of("lengths", {"lengths.targets": "20,24"})["targets"] == "20,24"
    with pytest.raises(ValueError, match="numbers with commas"):
        options_of("lengths", {"lengths.targets": "20,x"})
