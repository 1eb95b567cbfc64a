"""A report of a tokenizer of sounds: its numbers are those a user gets, clip by clip."""

from math import log2

import pytest
import torch

from mmtok.evaluation.audio import bits_of, budgets, evaluate_audio
from mmtok.evaluation.audio_metrics import SoundMetrics
from mmtok.evaluation.audio_quality import groups_of
from mmtok.tokenizers import build_tokenizer

ENCODER = {"name": "seanet", "channels": 4, "strides": [4, 5]}
QUANTIZER = {"name": "rq", "codebook_size": 16, "depth": 3}


def build(quantizer=QUANTIZER):
    torch.manual_seed(0)
    return build_tokenizer({"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": ENCODER}, quantizer)


@pytest.fixture(autouse=True)
def no_judges(monkeypatch):
    monkeypatch.setattr(
        "mmtok.evaluation.audio.build_judges", lambda wanted: ([], {"pesq": "absent: pip install pesq"})
    )


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(4, 1, 900, generator=generator) - 0.5) * 0.4
    return {"x": x, "lengths": torch.tensor([900, 410, 900, 201])}


def test_the_numbers_are_those_of_encode_and_decode(batch):
    tokenizer = build().eval()
    report = evaluate_audio(tokenizer, [batch])
    for levels, row in ((None, report.metrics), (1, report.by_levels[0]), (2, report.by_levels[1])):
        sums = SoundMetrics(8000)
        for x, length in zip(batch["x"], batch["lengths"].tolist(), strict=True):
            clip = x[None, :, :length]
            sums.update(clip, tokenizer.decode(tokenizer.encode(clip, budget=levels)))
        expected = sums.result()
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert report.choices["round_trip_max_difference"] < 1e-5
    assert report.choices["definitions"]["pesq"] == "absent: pip install pesq"


def test_bits_and_tokens_are_those_of_the_clips_and_not_of_the_padding(batch):
    report = evaluate_audio(build(), [batch])
    frames, seconds = 45 + 21 + 45 + 11, (900 + 410 + 900 + 201) / 8000
    assert report.metrics["bits_per_second"] == pytest.approx(frames * 12 / seconds)
    assert report.metrics["tokens_per_second"] == pytest.approx(frames * 3 / seconds)
    assert [row["bits_per_second"] for row in report.by_levels] == pytest.approx(
        [frames * 4 * levels / seconds for levels in (1, 2, 3)]
    )
    assert [int(counts.sum()) for counts in report.counts] == [frames] * 3
    assert sum(level["entropy"] for level in report.usage) / 12 == pytest.approx(report.metrics["bitrate_efficiency"])
    assert all(level["entropy"] <= log2(16) for level in report.usage)


def test_without_a_quantizer_there_are_no_bits_and_no_gap(batch):
    report = evaluate_audio(build({"name": "none"}), [batch])
    assert report.metrics["quantization_gap"] == pytest.approx(0, abs=1e-4)
    assert "bits_per_second" not in report.metrics
    assert report.by_levels == ()
    assert report.usage == []


def test_batches_change_nothing_and_the_first_clips_are_taken(batch):
    whole = evaluate_audio(build(), [batch])
    parts = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(4)]
    alone = evaluate_audio(build(), parts)
    names = ("si_sdr", "mel", "stft", "bits_per_second", "si_sdr_bypass")
    assert [alone.metrics[n] for n in names] == pytest.approx([whole.metrics[n] for n in names], rel=1e-4)
    few = evaluate_audio(build(), parts, max_samples=2, examples=1)
    assert few.samples == 2
    assert [clip.shape for clip in few.clips[0]] == [(1, 900)]


def test_groups_know_which_clips_they_hold(batch):
    groups = [*groups_of([batch, batch], torch.device("cpu"), most=6)]
    numbers = sorted(number for group in groups for number in group.numbers)
    assert numbers == [0, 1, 2, 3, 4, 5]
    assert {group.x.shape[2] for group in groups} == {900, 410, 201}


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="the loader gave no clip"):
        evaluate_audio(build(), [])


def test_levels_that_are_measured():
    assert budgets(1) == []
    assert budgets(4) == [1, 2, 3]
    assert budgets(32) == [*range(1, 9), 16]
    assert bits_of(build().spec, [0, 2]) == 8
