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


@pytest.mark.parametrize("name", [*NAMES, "mel", "stft"])
def test_ranks_that_hold_unequal_padding_average_to_the_loss_of_all(name, monkeypatch):
    fields = {"sample_rate": 8000, "bands": 4, "windows": (32, 64)} if name == "mel" else {}
    loss = losses.build(name, **fields | ({"windows": (32, 64)} if name == "stft" else {}))
    reconstruction, x = torch.rand(2, 4, 1, 200) * 2 - 1
    mask = torch.arange(200) < torch.tensor([200, 17, 90, 0])[:, None, None]
    whole = loss(reconstruction, x, mask)
    ranks = [(reconstruction[rank::2], x[rank::2], mask[rank::2]) for rank in (0, 1)]
    local = torch.stack([loss.eval()(*own) for own in ranks]).mean()
    counts = []
    monkeypatch.setattr("mmtok.reduce.mean_over_ranks", lambda count: counts.append(count) or count)
    for own in ranks:
        loss.train()(*own)
    together = sum(counts) / 2
    assert len(counts) == 2  # one collective a term and rank, however many scales
    monkeypatch.setattr("mmtok.reduce.mean_over_ranks", lambda count: together)
    torch.testing.assert_close(torch.stack([loss(*own) for own in ranks]).mean(), whole)
    assert not torch.isclose(local, whole)
    monkeypatch.setattr("mmtok.reduce.mean_over_ranks", lambda count: pytest.fail("one rank alone may validate"))
    with torch.no_grad():
        loss(*ranks[0])
    loss.eval()(*ranks[0])


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_summed_in_full(name, pair):
    a, b = (tensor.bfloat16() for tensor in pair)
    got = losses.build(name)(a, b)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, losses.build(name)(a.float(), b.float()))


def test_a_delta_of_zero_is_refused():
    with pytest.raises(ValueError, match="delta must be above 0"):
        losses.build("huber", delta=0.0)


def test_a_sum_over_the_elements_of_an_item_is_their_mean_times_their_number():
    x, y = torch.randn(5, 12), torch.randn(5, 12)
    total = losses.build({"name": "l2", "reduce": "sum"})(y, x)
    torch.testing.assert_close(total, (y - x).square().sum(1).mean())
    torch.testing.assert_close(losses.build("l2")(y, x) * 12, total)
