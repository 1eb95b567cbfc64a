"""Distances to the input."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.losses import losses

NAMES = ("l1", "l2", "huber")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(2, 3, 4, 6, generator=generator) * 2 - 1 for _ in range(2))


@pytest.mark.parametrize(("name", "reference"), [("l1", F.l1_loss), ("l2", F.mse_loss)])
def test_without_a_mask_it_is_torchs_own(name, reference, pair):
    torch.testing.assert_close(losses.build(name)(*pair), reference(*pair))


def test_huber_is_torchs_over_its_delta(pair):
    torch.testing.assert_close(losses.build("huber", delta=0.3)(*pair), F.huber_loss(*pair, delta=0.3) / 0.3)


@pytest.mark.parametrize("name", NAMES)
def test_padding_changes_nothing_even_where_it_is_nan(name, pair):
    reconstruction, x = (tensor.clone() for tensor in pair)
    loss = losses.build(name)
    want = loss(reconstruction[..., :4], x[..., :4])
    x[..., 4:] = torch.nan
    mask = torch.ones(2, 1, 4, 6, dtype=torch.bool)
    mask[..., 4:] = False
    torch.testing.assert_close(loss(reconstruction, x, mask), want)


@pytest.mark.parametrize("name", NAMES)
def test_an_all_masked_batch_costs_nothing(name, pair):
    assert losses.build(name)(*pair, torch.zeros(2, 1, 4, 6, dtype=torch.bool)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_summed_in_full(name, pair):
    a, b = (tensor.bfloat16() for tensor in pair)
    got = losses.build(name)(a, b)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, losses.build(name)(a.float(), b.float()))


def test_a_delta_of_zero_is_refused():
    with pytest.raises(ValueError, match="delta must be above 0"):
        losses.build("huber", delta=0.0)
