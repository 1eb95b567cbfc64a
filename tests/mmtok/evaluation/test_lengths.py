"""What codes of several lengths are worth, and what each item needs."""

import math

import pytest
import torch

from mmtok.evaluation.lengths import measure_lengths
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.budget import Quality, Tokens
from mmtok.tokenizers.fidelity import counting, psnr

ENCODER = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 6}


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    block = {"name": "image_1d", "dim": 8, "image_size": 16, "encoder": ENCODER, "nested": "uniform"}
    return build_tokenizer(block, {"name": "vq", "codebook_size": 16}).eval()


@pytest.fixture
def batches():
    draws = torch.Generator().manual_seed(0)
    return [torch.rand(3, 3, 16, 16, generator=draws) * 2 - 1 for _ in range(2)]


def test_each_length_is_read_as_a_user_would(tokenizer, batches):
    found = measure_lengths(tokenizer, batches, [2, 6], [])
    assert (found.axis, found.quality, found.samples) == ("positions", "psnr", 6)
    x = torch.cat(batches)
    within = counting(torch.full((6, 2), 16), x)
    for row, count in zip(found.by_length, (2, 6), strict=True):
        want = psnr(x, tokenizer.decode(tokenizer.encode(x, budget=Tokens(count))), within).double().mean()
        assert row == {"steps": count, "tokens": count, "bits": 4 * count, "psnr": pytest.approx(float(want), abs=1e-4)}


def test_what_a_quality_takes_stands_beside_the_best_length_for_all(tokenizer, batches):
    x = torch.cat(batches)
    within = counting(torch.full((6, 2), 16), x)
    figures = torch.stack(
        [psnr(x, tokenizer.decode(tokenizer.encode(x, budget=Tokens(k))), within) for k in range(1, 7)]
    )
    target = float(figures.median())
    found = measure_lengths(tokenizer, batches, range(1, 7), [target]).searched[0]
    codes = tokenizer.encode(x, budget=Quality(psnr=target))
    assert found.kept == pytest.approx(float(codes.lengths.double().mean()))
    assert found.met == pytest.approx(float((figures[codes.lengths - 1, range(6)] >= target).double().mean()))
    shares = (figures >= target).double().mean(1)
    assert found.fixed == next(k for k in range(1, 7) if shares[k - 1] >= found.met)
    assert sum(found.counts) == 6
    assert sum(steps * count for steps, count in enumerate(found.counts)) == pytest.approx(6 * found.kept)


def test_a_quality_nobody_has_or_all_have_says_so(tokenizer, batches):
    none, every = measure_lengths(tokenizer, batches, [1, 6], [99.0, -9.0]).searched
    assert (none.met, none.kept) == (0, 6)
    assert math.isnan(none.fixed)  # no length gives anybody the quality
    assert (every.met, every.kept, every.fixed, every.crossed) == (1, 1, 1, 0)
    assert math.isnan(every.rank_correlation)


def test_levels_of_sounds_are_measured_alike():
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 4, "strides": [4, 5]}
    tokenizer = build_tokenizer(
        {"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": encoder}, {"name": "rq", "depth": 3}
    ).eval()
    found = measure_lengths(tokenizer, [torch.rand(2, 1, 400) - 0.5], [1, 3], [0.0])
    assert (found.axis, found.quality) == ("levels", "snr")
    assert [row["tokens"] for row in found.by_length] == [20, 60]


def test_levels_follow_how_dense_a_sound_is(monkeypatch):
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 4, "strides": [4, 5]}
    tokenizer = build_tokenizer(
        {"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": encoder}, {"name": "rq", "depth": 3}
    ).eval()
    seen = []
    monkeypatch.setattr("mmtok.evaluation.lengths.rank_correlation", lambda steps, sizes: seen.append(sizes) or 0.0)
    noise = torch.rand(1, 1, 8000) - 0.5
    measure_lengths(tokenizer, [noise[..., :2000], noise], [3], [0.0])
    short, long = seen[0].tolist()
    assert short == pytest.approx(long, rel=0.1)  # bytes of all of it would be four times as many


def test_nothing_to_measure_is_said(tokenizer):
    with pytest.raises(ValueError, match="nothing to measure"):
        measure_lengths(tokenizer, [], [1])
