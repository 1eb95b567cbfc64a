"""Bits under the fixed autoregressive model: what codes cost that can be predicted, and that cannot."""

import math

import pytest
import torch

from mmtok.compare import prior as module
from mmtok.compare.prior import Prior, PriorConfig, flat, measure_prior

SMALL = PriorConfig(width=32, depth=1, heads=2, steps=150, batch=16, lr=5e-3)


def ids(count, levels=1, length=12, size=16, seed=0):
    return torch.randint(size, (count, levels, length), generator=torch.Generator().manual_seed(seed))


def test_noise_costs_what_uniform_codes_cost():
    found = measure_prior(ids(400), ids(100, seed=1), (16,), SMALL)
    assert found.uniform_bits == 12 * 4
    assert found.unigram_bits == pytest.approx(48, rel=0.02)
    assert 0.97 * 48 < found.bits_per_sample < 1.15 * 48
    assert found.tokens_per_sample == 12


def test_what_the_tokens_before_tell_costs_nothing():
    first = ids(400, length=1)
    counted = (first + torch.arange(12)) % 16  # the first is drawn, the others follow
    found = measure_prior(counted[:300], counted[300:], (16,), SMALL)
    assert found.bits_per_sample < 12 < found.unigram_bits
    assert found.bits_per_sample > 3  # nobody predicts the first


def test_a_level_is_predicted_from_the_level_before():
    one = ids(400)
    both = torch.cat([one, (one + 3) % 16], 1)
    found = measure_prior(both[:300], both[300:], (16, 16), SMALL)
    assert found.uniform_bits == 96
    assert found.bits_per_sample < 70


def test_levels_follow_each_other_at_a_position():
    assert flat(torch.tensor([[[0, 1], [10, 11]]])).tolist() == [[0, 10, 1, 11]]


def test_a_token_sees_only_those_before():
    torch.manual_seed(0)
    model = Prior((16,), 8, SMALL).eval()
    tokens = torch.arange(8)[None]
    changed = tokens.clone()
    changed[0, 5] = 15
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.isclose(before[0, 5:], after[0, 5:]).any()


def test_places_without_a_code_cost_nothing():
    ragged = ids(200)
    ragged[::2, :, 6:] = -1
    found = measure_prior(ragged[:150], ragged[150:], (16,), SMALL)
    assert found.tokens_per_sample == 9
    assert found.uniform_bits == 9 * 4
    assert found.bits_per_token == pytest.approx(found.bits_per_sample / 9)


def test_long_items_are_cut_and_counted_whole():
    found = measure_prior(
        ids(60, length=50), ids(20, length=50, seed=1), (16,), PriorConfig(**vars(SMALL) | {"most": 16, "steps": 5})
    )
    assert found.uniform_bits == 200
    assert found.bits_per_sample == pytest.approx(50 * found.bits_per_token)


def test_held_out_items_may_be_longer_than_those_of_training():
    found = measure_prior(ids(60, length=8), ids(20, length=12, seed=1), (16,), SMALL)
    assert found.uniform_bits == 48


def test_logits_of_a_large_codebook_are_held_some_rows_at_a_time(monkeypatch):
    torch.manual_seed(0)
    model = Prior((64,), 12, SMALL)
    tokens = ids(4, size=64)[:, 0]
    whole = model(tokens)
    grads = torch.autograd.grad(whole.sum(), list(model.parameters()))
    monkeypatch.setattr(module, "LOGITS", 64 * 5)
    parts = model(tokens)
    torch.testing.assert_close(parts, whole)
    for a, b in zip(torch.autograd.grad(parts.sum(), list(model.parameters())), grads, strict=True):
        torch.testing.assert_close(a, b)


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    config = PriorConfig(**vars(SMALL) | {"steps": 5})
    first, second = (measure_prior(ids(50), ids(20, seed=1), (16,), config, seed=3) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_operations_grow_with_tokens_and_codebook():
    small, large, long = (Prior((size,), length, SMALL).flops(length) for size, length in ((16, 8), (160, 8), (16, 16)))
    assert large - small == 2 * 32 * 144 * 8
    assert long > 2 * small
    assert math.isfinite(long)


def test_positions_that_no_item_of_a_batch_has_are_left_out():
    torch.manual_seed(0)
    model = Prior((16, 16), 24, SMALL).eval()
    tokens = flat(ids(4, levels=2))
    tokens[:, 9:] = -1
    few = module._trimmed(tokens, 2)
    assert few.shape == (4, 10)  # whole positions
    with torch.no_grad():
        torch.testing.assert_close(model(few)[:, :9], model(tokens)[:, :9])
    assert module._trimmed(torch.full((2, 6), -1), 2).shape[1] == 2
