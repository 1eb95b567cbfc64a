"""A report of a tokenizer: its numbers, and what they depend on."""

import json
from math import log2

import pytest
import torch

from mmtok.evaluation import evaluate
from mmtok.evaluation.metrics import psnr
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.pixels import to_uint8, to_unit

ENCODER = {"name": "conv2d", "channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "groups": 4, "mid_blocks": 0}
pytestmark = pytest.mark.filterwarnings("ignore:A Frechet distance")


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    return build_tokenizer({"name": "image", "dim": 8, "encoder": ENCODER}, {"name": "fsq", "levels": [4, 4]})


@pytest.fixture
def pictures():
    return torch.randint(0, 256, (10, 3, 18, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def batches(pictures, size=4):
    return [{"x": part, "label": None} for part in pictures.split(size)]


def test_the_numbers_are_those_of_encode_and_decode(tokenizer, pictures):
    report = evaluate(tokenizer, batches(pictures), features="dct")
    codes = tokenizer.encode(to_unit(pictures))
    decoded = to_uint8(tokenizer.decode(codes))
    assert report.samples == 10
    assert report.metrics["psnr"] == pytest.approx(float(psnr(pictures, decoded).mean()), abs=1e-3)
    assert report.metrics["tokens_per_image"] == 5 * 4
    assert report.metrics["bits_per_pixel"] == pytest.approx(20 * log2(16) / (18 * 16))
    assert report.usage[0]["tokens"] == 200
    assert torch.equal(report.counts[0], torch.bincount(codes.ids.flatten(), minlength=16))
    assert report.choices["round_trip_max_difference"] == 0
    gap = report.metrics["psnr_bypass"] - report.metrics["psnr"]
    assert report.metrics["quantization_gap"] == pytest.approx(gap)


def test_a_decoder_that_gives_no_numbers_is_not_measured(tokenizer, pictures):
    with torch.no_grad():
        for parameter in tokenizer.quantizer.project_out.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"the tokenizer: decode gave values that are not finite"):
        evaluate(tokenizer, batches(pictures), features="none")


def test_floats_and_bytes_are_the_same_pictures(tokenizer, pictures):
    of_bytes = evaluate(tokenizer, batches(pictures), features="none").metrics
    of_floats = evaluate(tokenizer, batches(to_unit(pictures)), features="none").metrics
    assert of_bytes == of_floats


def test_batches_change_nothing(tokenizer, pictures):
    small = evaluate(tokenizer, batches(pictures, 3), features="dct").metrics
    large = evaluate(tokenizer, batches(pictures, 10), features="dct").metrics
    assert small == pytest.approx(large, rel=1e-3)


def test_without_a_quantizer_there_is_no_gap(pictures):
    tokenizer = build_tokenizer({"name": "image", "dim": 8, "encoder": ENCODER}, {"name": "none"})
    report = evaluate(tokenizer, batches(pictures), features="none")
    assert report.metrics["quantization_gap"] == pytest.approx(0, abs=1e-3)
    assert "bits_per_pixel" not in report.metrics
    assert report.usage == []


def test_every_choice_that_changes_a_number_is_in_the_file(tokenizer, pictures, tmp_path):
    """image.md trap 24."""
    notes = {"weights": "ema", "step": 12, "crop": "center 16", "data": {"manifest_sha256": "ab"}}
    report = evaluate(tokenizer, batches(pictures), features="dct", notes=notes)
    report.save(tmp_path / "evaluation" / "val.json")
    read = json.loads((tmp_path / "evaluation" / "val.json").read_text())
    assert read["metrics"].keys() >= {"psnr", "ssim", "FD-DCT", "bits_per_pixel", "tokens_per_image"}
    assert "FID" not in read["metrics"]
    assert read["choices"].items() >= notes.items()
    assert read["choices"]["frechet"] == {
        "name": "FD-DCT",
        "features": read["choices"]["frechet"]["features"],
        "reference": "the inputs of the same pictures",
        "samples": 10,
        "enough_samples": False,
    }
    assert "rounded" in read["choices"]["definitions"]["rounding"]
    assert read["usage"][0]["state"] == "n/a"


def test_a_number_that_does_not_exist_is_null(tokenizer, tmp_path):
    tiny = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    report = evaluate(tokenizer, batches(tiny), features="none")
    assert report.to_dict()["metrics"]["ssim"] is None
    report.save(tmp_path / "tiny.json")


def test_a_limit_takes_the_first_and_examples_are_kept(tokenizer, pictures):
    report = evaluate(tokenizer, batches(pictures), features="none", max_samples=6, examples=5)
    assert report.samples == 6
    x, y = report.examples
    assert torch.equal(x, pictures[:5])
    assert y.shape == x.shape


def test_training_mode_is_left_as_it_was(tokenizer, pictures):
    tokenizer.train()
    evaluate(tokenizer, batches(pictures), features="none")
    assert tokenizer.training


def test_an_empty_loader_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the loader gave no picture"):
        evaluate(tokenizer, [])
