"""Codecs at a tokenizer's bits: whole files counted, the same pictures, the nearest quality not above."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from mmtok.evaluation import EvaluationReport
from mmtok.evaluation import baselines as baselines_module
from mmtok.evaluation.baselines import choices, find_quality, measure_codecs
from mmtok.evaluation.codecs import CODECS, available_codecs
from mmtok.evaluation.comparison import Comparison, build_instruments

JPEG = CODECS[0]
pytestmark = pytest.mark.filterwarnings("ignore:A Frechet distance")


def photographs(count, side=48, channels=3):
    """Smooth pictures with some noise, so that a codec has something to save."""
    rows, columns = torch.meshgrid(torch.arange(side) / 7, torch.arange(side) / 5, indexing="ij")
    generator = torch.Generator().manual_seed(0)
    phase = torch.rand(count, channels, 1, 1, generator=generator) * 6
    noise = 12 * torch.randn(count, channels, side, side, generator=generator)
    return (128 + 70 * torch.sin(rows + phase) * torch.cos(columns - phase) + noise).clamp(0, 255).byte()


def loader(*batches):
    return [{"x": batch} for batch in batches]


def bits(codec, pictures, quality):
    files = [len(codec.encode(picture, quality)) for picture in pictures]
    return 8 * sum(files) / sum(picture[0].numel() for picture in pictures)


def measure(batches, most, codecs=(JPEG,), **given):
    instruments = build_instruments("dct", "none", "cpu")
    return list(measure_codecs(loader(*batches), codecs, most, instruments=instruments, **given))


@pytest.mark.parametrize("codec", available_codecs(), ids=lambda codec: codec.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_from_the_file_that_is_counted(codec, channels):
    (picture,) = photographs(1, channels=channels)
    data = codec.encode(picture, codec.qualities[-1])
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (48, 48)
    back = codec.decode(data, channels)
    assert back.shape == picture.shape
    assert back.dtype == torch.uint8
    assert (back.float() - picture.float()).abs().mean() < 12
    assert len(codec.encode(picture, codec.qualities[0])) < len(data)
    assert codec.flat_bytes(picture) <= len(codec.encode(picture, codec.qualities[0]))


def test_the_file_is_what_pillow_writes():
    (picture,) = photographs(1)
    file = io.BytesIO()
    Image.fromarray(picture.movedim(0, -1).numpy()).save(file, "JPEG", quality=30, optimize=True)
    assert JPEG.encode(picture, 30) == file.getvalue()
    assert np.array_equal(JPEG.decode(file.getvalue(), 3).movedim(0, -1), np.array(Image.open(file)))


@pytest.mark.parametrize("searched", [2, 64])
def test_the_quality_is_the_highest_within_the_budget(monkeypatch, searched):
    """Found on a few pictures, and made right on all of them."""
    monkeypatch.setattr(baselines_module, "SEARCHED", searched)
    pictures = photographs(12)
    pictures[::2] = 128 + pictures[::2] // 40  # half of them are nearly flat: a sample misjudges the set
    sample = baselines_module._spread(pictures.split(5))
    for most in (2.0, 2.5, 4.0):
        quality, found = find_quality(JPEG, sample, lambda: pictures.split(5), most)
        assert found == pytest.approx(bits(JPEG, pictures, quality))
        assert found <= most < bits(JPEG, pictures, quality + 1)


def test_the_figures_are_those_of_the_decoded_files():
    pictures = photographs(6)
    (result,) = measure(pictures.split(4), 3.0, examples=2, every=3)
    decoded = torch.stack([JPEG.decode(JPEG.encode(picture, result.quality), 3) for picture in pictures])
    want = Comparison(build_instruments("dct", "none", "cpu"))
    want.update(pictures, decoded)
    assert result.metrics == pytest.approx(want.metrics(), rel=1e-4, abs=1e-6)
    assert result.reached
    assert result.bits_per_pixel <= 3.0
    assert torch.equal(result.examples, decoded[[0, 3]])


def test_a_budget_below_the_headers_is_said_to_be_out_of_reach():
    pictures = photographs(3, side=16)
    (result,) = measure([pictures], 0.5)
    assert not result.reached
    assert result.quality == JPEG.qualities[0]
    assert result.bits_per_pixel == pytest.approx(bits(JPEG, pictures, 1))
    assert 0.5 < result.flat_bits_per_pixel <= result.bits_per_pixel


def test_more_bits_than_a_codec_can_spend_are_its_highest_quality():
    (result,) = measure([photographs(2)], 100.0)
    assert (result.quality, result.reached) == (100, True)


@pytest.mark.parametrize("batches", [
    [photographs(1)], [photographs(2, channels=1)], [photographs(2, side=40), photographs(3, side=24)],
], ids=["one picture", "grey pictures", "pictures of two sizes"])  # fmt: skip
def test_every_set_of_pictures_can_be_compared(batches):
    for result in measure(batches, 1.5, codecs=available_codecs()):
        assert result.metrics["psnr"] > 10
        assert len(result.examples) == sum(map(len, batches))


def test_a_limit_holds_for_the_codecs_too():
    pictures = photographs(6)
    (few,), (all_of_few,) = measure(pictures.split(4), 3.0, max_samples=5), measure([pictures[:5]], 3.0)
    assert few.quality == all_of_few.quality
    assert few.metrics == pytest.approx(all_of_few.metrics)


def test_the_file_holds_every_choice(tmp_path):
    """image.md trap 24."""
    results = measure([photographs(4)], 2.0, codecs=available_codecs())
    report = EvaluationReport(
        4, {"psnr": 1.0}, [], {"baselines": choices()}, baselines=tuple(result.to_dict() for result in results)
    )
    report.save(tmp_path / "r.json")
    read = json.loads((tmp_path / "r.json").read_text())
    jpeg = read["baselines"][0]
    assert (jpeg["codec"], jpeg["options"]) == ("JPEG", {"optimize": True})
    assert "headers included" in read["choices"]["baselines"]["definitions"]["bits_per_pixel"]
    assert "pillow" in read["choices"]["baselines"]["libraries"]
