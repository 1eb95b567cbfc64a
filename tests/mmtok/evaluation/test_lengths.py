"""What codes of several lengths are worth, and what each item needs."""

import math

import pytest
import torch

from mmtok.evaluation.lengths import measure_lengths
from mmtok.evaluation.predictor import fit_predictor
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.budget import Bits, Quality, Tokens
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


def sounds():
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 4, "strides": [4, 5]}
    block = {"name": "audio", "sample_rate": 8000, "dim": 8, "encoder": encoder}
    return build_tokenizer(block, {"name": "rq", "depth": 3}).eval()


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
    tokenizer = sounds()
    found = measure_lengths(tokenizer, [torch.rand(2, 1, 400) - 0.5], [1, 3], [0.0])
    assert (found.axis, found.quality) == ("levels", "snr")
    assert [row["tokens"] for row in found.by_length] == [20, 60]


def test_levels_follow_how_dense_a_sound_is(monkeypatch):
    tokenizer = sounds()
    seen = []
    monkeypatch.setattr("mmtok.evaluation.lengths.rank_correlation", lambda steps, sizes: seen.append(sizes) or 0.0)
    noise = torch.rand(1, 1, 8000) - 0.5
    measure_lengths(tokenizer, [noise[..., :2000], noise], [3], [0.0])
    short, long = seen[0].tolist()
    assert short == pytest.approx(long, rel=0.1)  # bytes of all of it would be four times as many


def test_silence_is_a_sound_like_others():  # audio.md trap 34
    tokenizer = sounds()
    draws = torch.Generator().manual_seed(1)
    batches = [torch.rand(1, 1, 400, generator=draws) - 0.5 for _ in range(40)]
    batches += [torch.zeros(1, 1, 400)] * 5
    found = measure_lengths(tokenizer, batches, [1, 3])
    assert all(math.isfinite(row["snr"]) for row in found.by_length)
    predictor = fit_predictor(tokenizer, batches).predictor
    assert predictor.weights.isfinite().all()
    assert predictor.errors.isfinite().all()


def test_a_padded_batch_is_cut_as_its_items_are_alone():  # audio.md trap 28
    tokenizer, lengths = sounds(), torch.tensor([100, 400])
    x = torch.rand(2, 1, 400, generator=torch.Generator().manual_seed(2)) - 0.5
    x[0, :, 100:] = 0
    quality = max(measure_lengths(tokenizer, [x[:1, :, :100], x[1:]], [1, 2, 3]).by_length, key=lambda row: row["snr"])
    cuts = []
    for budget in (Tokens(40), Bits(40 * 10), Quality(snr=quality["snr"])):
        together = tokenizer.encode(x, lengths, budget=budget)
        for row, count in enumerate(lengths.tolist()):
            alone = tokenizer.encode(x[row : row + 1, :, :count], budget=budget).ids
            assert torch.equal(together.ids[row : row + 1, :, : alone.shape[2]], alone)
            cuts.append(int((alone[0, :, 0] >= 0).sum()))
    assert cuts[:4] == [3, 2, 3, 2]  # levels of 5 and of 20 frames


def test_nothing_to_measure_is_said(tokenizer):
    with pytest.raises(ValueError, match="nothing to measure"):
        measure_lengths(tokenizer, [], [1])
