"""What stands for dropped levels of a residual quantizer."""

import pytest
import torch

from mmtok.quantizers import build_quantizer


@pytest.fixture
def latents():
    return torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))


def build(absent="learned", **fields):
    torch.manual_seed(0)
    quantizer = build_quantizer("rq", dim=8, codebook_size=16, depth=3, dropout=0.5, absent=absent, **fields).eval()
    if quantizer.absent is not None:
        torch.nn.init.normal_(quantizer.absent)
    return quantizer


def test_a_vector_stands_for_each_level_that_an_item_lacks(latents):
    levels = torch.tensor([1, 2, 3, 2])
    own, zero = build(), build("zero")
    with torch.no_grad():
        added = own(latents, levels=levels).values - zero(latents, levels=levels).values
    assert torch.equal(own.encode(latents, levels=levels), zero.encode(latents, levels=levels))
    for item, missing in enumerate([own.absent.sum(0), own.absent[1], torch.zeros(8), own.absent[1]]):
        torch.testing.assert_close(added[item], missing.detach().expand(6, 8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("seed", range(5))
def test_decoding_knows_absence_by_the_ids(latents, seed):
    """Whatever levels and padding an item has; rows that are left out are levels that are left out."""
    draws = torch.Generator().manual_seed(seed)
    levels = torch.randint(1, 4, (4,), generator=draws)
    mask = torch.rand(4, 6, generator=draws) < 0.7
    quantizer = build()
    out = quantizer(latents, mask, levels=levels)
    assert torch.equal(quantizer.decode(out.ids), out.values)
    assert not out.values[~mask].any()
    short = quantizer(latents, levels=2)
    assert torch.equal(quantizer.decode(short.ids[:, :2]), short.values)


def test_it_learns_and_starts_as_nothing(latents):
    quantizer = build_quantizer("rq", dim=8, codebook_size=16, depth=3, dropout=0.5, absent="learned")
    assert not quantizer.absent.any()
    quantizer(latents, levels=torch.tensor([1, 3, 3, 2])).values.sum().backward()
    assert torch.equal(quantizer.absent.grad, torch.tensor([[6.0], [12.0]]).expand(2, 8))
    quantizer.absent.grad = None
    quantizer(latents).values.sum().backward()
    assert not quantizer.absent.grad.any()  # a part of every pass, as ranks that meet need it
    assert "absent" not in build("zero").state_dict()


def test_nothing_stands_for_an_item_without_a_level(latents):
    out = build()(latents, levels=torch.tensor([0, 1, 0, 3]))
    assert not out.values[[0, 2]].any()
    assert out.values[1].any()


@pytest.mark.parametrize("fields", [{"dropout": 0.0}, {"depth": 1}])
def test_what_cannot_learn_is_refused(fields):
    with pytest.raises(ValueError, match="nothing to learn from"):
        build_quantizer("rq", dim=8, absent="learned", **{"dropout": 0.5, "depth": 3} | fields)
