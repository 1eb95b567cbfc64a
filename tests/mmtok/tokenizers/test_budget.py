"""How much of a code is kept, item by item."""

import numpy as np
import pytest
import torch

from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.budget import Bits, Quality, Tokens, budget_of
from mmtok.tokenizers.fidelity import counting, psnr, snr
from mmtok.tokenizers.pixels import to_uint8

ENCODER = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 6}
RQ = {"name": "rq", "depth": 3, "codebook_size": 16}


def row(quantizer=None, **fields):
    torch.manual_seed(0)
    block = {"name": "image_1d", "dim": 8, "image_size": 16, "encoder": ENCODER, "nested": "uniform"} | fields
    return build_tokenizer(block, quantizer or {"name": "vq", "codebook_size": 16}).eval()


def grid():
    torch.manual_seed(0)
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "groups": 4, "mid_blocks": 0}
    return build_tokenizer({"name": "image", "dim": 8, "encoder": encoder}, RQ).eval()


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def by_length(wanted):
    """A measure that knows which of the first reconstructions is good: those of the lengths in `wanted`."""
    lengths = iter(wanted)
    return lambda x, y, within: torch.tensor(next(lengths), dtype=torch.float32)


def test_tokens_and_bits_keep_the_longest_code_within_them():
    x = pictures(2, 3, 16, 16)
    assert row().encode(x, budget=Tokens(4)).lengths.tolist() == [4, 4]
    assert row().encode(x, budget=Tokens(100)).lengths.tolist() == [6, 6]
    assert row().encode(x, budget=Bits(11)).lengths.tolist() == [2, 2]  # of 4 bits each
    assert row(RQ).encode(x, budget=Tokens(7)).lengths.tolist() == [2, 2]  # of three levels each
    codes = grid().encode(pictures(1, 3, 4, 4), budget=Tokens(9))  # 4 positions a level
    assert (codes.ids >= 0).all(2).tolist() == [[True, True, False]]
    codes = grid().encode(pictures(1, 3, 4, 4), budget=Bits(16))
    assert (codes.ids >= 0).all(2).tolist() == [[True, False, False]]


def test_budgets_are_not_overrun_where_latents_are_bfloat16():
    tokenizer = row(encoder=ENCODER | {"queries": 300})
    with torch.autocast("cpu", torch.bfloat16):  # which has no number between 260 and 262
        codes = [tokenizer.encode(pictures(2, 3, 16, 16), budget=one) for one in (Tokens(261), Bits(4 * 261))]
    assert [one.lengths.tolist() for one in codes] == [[261, 261]] * 2
    assert tokenizer.encode(pictures(1, 3, 16, 16), budget=Bits(float("inf"))).lengths.tolist() == [300]


def test_a_cut_code_is_what_the_hint_gives():
    x, tokenizer = pictures(2, 3, 8, 8), grid()
    codes = tokenizer.encode(x, budget=Tokens(32))
    assert torch.equal(codes.ids, tokenizer.encode(x, budget=2).ids)
    torch.testing.assert_close(tokenizer.decode(codes), tokenizer.decode(tokenizer.encode(x, budget=2)))


def test_each_item_gets_the_fewest_steps_that_are_good_enough():
    tokenizer, x = row(), pictures(2, 3, 16, 16)
    latents = tokenizer.embed(x)
    needed = torch.tensor([3, 6])

    def measure(x, y, within):
        measure.calls += 1
        return (measure.kept >= needed).float()

    measure.calls = 0
    code = tokenizer.code

    def watched(latents, **kept):
        measure.kept = kept["positions"]
        return code(latents, **kept)

    tokenizer.code = watched
    found = Quality(measure=measure, at_least=1).search(tokenizer, x, latents)
    assert found.kept.tolist() == [3, 6]
    assert found.codes.lengths.tolist() == [3, 6]
    assert found.met.tolist() == [True, True]
    assert not found.crossed.any()
    assert found.decodes == measure.calls <= 6


def test_words_are_budgets_and_half_a_token_is_none():
    tokenizer, x = row(), pictures(2, 3, 16, 16)
    assert torch.equal(tokenizer.encode(x, budget="tokens=2").ids, tokenizer.encode(x, budget=Tokens(2)).ids)
    for wrong in (2.5, "4"):
        with pytest.raises(ValueError, match="is no number of them"):
            Tokens(wrong)
    assert Tokens(np.int64(2)).spend(tokenizer, x, tokenizer.embed(x)).lengths.tolist() == [2, 2]
    assert budget_of(np.int64(3)) == 3
    with pytest.raises(ValueError, match="is no budget"):
        tokenizer.encode(x, budget=2.0)
    with pytest.raises(ValueError, match="less than the shortest code"):
        Bits(0.5).check(tokenizer)


def test_silence_is_met_by_what_nobody_hears():
    x = torch.zeros(2, 1, 50)
    y = torch.stack([torch.zeros(1, 50), torch.full((1, 50), 0.1)])
    quiet, loud = snr(x, y, torch.ones(2, 1, 50, dtype=torch.bool)).tolist()
    assert quiet > 30
    assert -100 < loud < -50


def test_vectors_are_measured_whole():
    torch.manual_seed(0)
    vectors = {"name": "vector", "width": 6, "dim": 4, "standardize": False, "encoder": {"name": "mlp", "widths": [8]}}
    tokenizer = build_tokenizer(vectors, {"name": "rq", "depth": 3, "codebook_size": 8}).eval()
    x = torch.randn(5, 6)
    found = Quality(snr=0.0).search(tokenizer, x, tokenizer.embed(x))
    reads = Quality(snr=0.0).reached(tokenizer, x, found.codes)
    assert ((reads >= 0) == found.met).all()


def test_scales_are_paid_by_their_cells():
    torch.manual_seed(0)
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "groups": 4, "mid_blocks": 0}
    tokenizer = build_tokenizer(
        {"name": "image", "dim": 8, "encoder": encoder},
        {"name": "multiscale", "codebook_size": 16, "scales": [1, 2, 4]},
    ).eval()
    ids = tokenizer.encode(torch.rand(1, 3, 8, 8), budget=Tokens(6)).ids
    assert int((ids >= 0).sum()) == 5  # 1 + 4, and the third scale would take 16 more


def test_an_item_that_never_gets_there_keeps_all_and_is_told():
    tokenizer, x = row(), pictures(2, 3, 16, 16)
    found = Quality(psnr=99).search(tokenizer, x, tokenizer.embed(x))
    assert found.kept.tolist() == [6, 6]
    assert not found.met.any()


def test_quality_that_does_not_grow_with_length_is_told_and_not_trusted():
    tokenizer, x = row(), pictures(1, 3, 16, 16)
    # Rungs 1, 2, 4, 6: 1 passes, 2 fails, 4 and 6 pass; then 3, between the last that failed and 4, passes.
    quality = Quality(measure=by_length([[1], [0], [1], [1], [1]]), at_least=1)
    found = quality.search(tokenizer, x, tokenizer.embed(x))
    assert found.kept.tolist() == [3]
    assert found.crossed.tolist() == [True]
    assert found.met.tolist() == [True]


def test_levels_are_searched_as_positions_are():
    tokenizer, x = grid(), pictures(3, 3, 8, 8)
    by_level = torch.stack([snr(x, tokenizer.decode(tokenizer.encode(x, budget=k)), counting(torch.full((3, 2), 8), x))
                            for k in (1, 2, 3)])  # fmt: skip
    target = float(by_level[1].median())
    found = Quality(snr=target).search(tokenizer, x, tokenizer.embed(x))
    for item, kept in enumerate(found.kept.tolist()):
        good = (by_level[:, item] >= target - 1e-5).tolist()
        assert all(good[kept - 1 :]) or not found.met[item]
        assert kept == 1 or not good[kept - 2] or found.crossed[item]


def test_measures_look_at_each_item_within_its_size():
    x, sizes = pictures(2, 3, 6, 5), torch.tensor([[6, 5], [4, 2]])
    y = x + 0.1
    y[1, :, 4:] = 9
    y[1, :, :, 2:] = 9
    within = counting(sizes, x)
    assert within.sum((1, 2, 3)).tolist() == [30, 8]
    alone = psnr(x[1:, :, :4, :2], y[1:, :, :4, :2], torch.ones(1, 1, 4, 2, dtype=torch.bool))
    torch.testing.assert_close(psnr(x, y, within)[1:], alone)
    error = (to_uint8(x[:1]).double() - to_uint8(y[:1]).double()).square().mean()
    assert psnr(x, y, within)[0].item() == pytest.approx(float(10 * (255**2 / error).log10()), abs=1e-3)


def test_what_cannot_be_cut_or_is_no_quality_is_refused():
    with pytest.raises(ValueError, match="codes have one length"):
        row(nested="none").encode(pictures(1, 3, 8, 8), budget=Tokens(3))
    with pytest.raises(ValueError, match=r"less than the shortest code .* which is"):
        row().encode(pictures(1, 3, 8, 8), budget=Bits(0.5))
    with pytest.raises(ValueError, match="tokens=3"):
        row().encode(pictures(1, 3, 8, 8), budget=3)
    for budget in (lambda: Tokens(0), lambda: Bits(0), lambda: Bits(float("nan"))):
        with pytest.raises(ValueError, match="keeps nothing"):
            budget()
    for fields in ({}, {"psnr": 30, "snr": 3}, {"measure": psnr}, {"psnr": 30, "at_least": 2}):
        with pytest.raises(ValueError, match="one of psnr"):
            Quality(**fields)


@pytest.mark.parametrize(
    "text", ["psnr", "psnr=abc", "tokens=2.5", "tokens=8,predicted", "psnr=20,predicted=2", "dB=3", ",predicted", "3.5"]
)
def test_text_that_is_no_budget_is_told_what_is(text):
    with pytest.raises(ValueError, match=r"tokens=N, bits=N, psnr=DB \(pictures\), snr=DB \(any signal\)"):
        budget_of(text)


@pytest.mark.parametrize("text", ["psnr=nan", "snr=inf"])
def test_a_quality_is_a_number_of_decibels(text):
    with pytest.raises(ValueError, match="Give a number of dB"):
        budget_of(text)
