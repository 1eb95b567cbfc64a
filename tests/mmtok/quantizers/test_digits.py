"""Nested codebooks: leading digits of a code are a code of a smaller codebook."""

import warnings
from math import prod

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.tokenizers import build_tokenizer

FAMILIES = {
    "lfq": {"bits": 6, "dropout": 0.5},
    "bsq": {"bits": 6, "group_size": 4, "dropout": 0.5},
    "fsq": {"levels": [5, 3, 4, 7], "dropout": 0.5},
}


@pytest.fixture
def latents():
    return torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(0))


def build(name, **fields):
    torch.manual_seed(0)
    return build_quantizer(name, dim=16, **FAMILIES[name] | fields)


def rest(quantizer, digits):
    """Codes that share their leading digits."""
    levels = getattr(quantizer.config, "levels", [2] * quantizer.digits)
    return prod(levels[: len(levels) - digits])


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_of_a_prefix_are_the_leading_digits_of_the_longer_ids(name, latents):
    quantizer = build(name).eval()
    ids = quantizer.encode(latents)
    for digits in range(1, quantizer.digits + 1):
        small = quantizer.prefix(digits)
        assert small.codebook_sizes[0] * rest(quantizer, digits) == quantizer.codebook_sizes[0]
        assert torch.equal(small.encode(latents), ids // rest(quantizer, digits))
        assert not small.training


@pytest.mark.parametrize("name", FAMILIES)
def test_training_sees_the_values_that_a_prefix_gives(name, latents):
    quantizer = build(name)
    with torch.no_grad():
        for digits in range(1, quantizer.digits + 1):
            cut = quantizer(latents, digits=digits).values
            torch.testing.assert_close(cut, quantizer.prefix(digits)(latents).values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_items_cut_short_have_no_code_of_the_whole_vocabulary_and_count_nowhere(name, latents):
    quantizer = build(name)
    most = quantizer.digits
    kept = torch.tensor([1, most, 2, most, 1, 1, most, 3])
    mask = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    out, whole = quantizer(latents, mask, digits=kept), quantizer(latents, mask)
    full = kept == most
    assert (out.ids[~full] == -1).all()
    assert torch.equal(out.ids[full], whole.ids[full])
    assert out.stats["counts"].sum() == mask[full].sum()
    alone = quantizer(latents[full], mask[full]).stats
    for key, value in alone.items():
        assert torch.equal(out.stats[key], value)
    for key, term in whole.losses.items():  # the bits that are read as zero are bits all the same
        assert torch.equal(out.losses[key], term)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_digits_that_are_left_out_get_no_gradient(name, latents):
    quantizer = build(name, **({"entropy_weight": 0.0} if name != "fsq" else {}))
    quantizer(latents, digits=2).values.square().sum().backward()
    reached = quantizer.project_out.weight.grad.abs().sum(0) > 0
    most = quantizer.digits
    expected = [channel >= most - 2 for channel in range(most)] if name == "fsq" else [i < 2 for i in range(most)]
    assert reached.tolist() == expected


def test_the_trainer_draws_digits_by_a_generator_of_its_own():
    quantizer = build("lfq")
    drawn = [quantizer.draw_digits(4000, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*drawn)
    shares = torch.bincount(drawn[0], minlength=7) / 4000
    assert shares[0] == 0
    assert (shares[1:6] - 1 / 12).abs().max() < 0.02
    assert abs(float(shares[6]) - 7 / 12) < 0.03
    assert build("lfq", dropout=0.0).draw_digits(4, torch.Generator()) is None


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prefix_is_restored_from_what_it_saves(name, latents):
    small = build(name).eval().prefix(2)
    again = build_quantizer({"name": name, **vars(small.config)}).eval()
    again.load_state_dict(small.state_dict())
    assert torch.equal(again(latents).values, small(latents).values)


def test_what_makes_no_sense_is_refused(latents):
    with pytest.raises(ValueError, match="1 to 6 digits"):
        build("lfq").prefix(7)
    for wrong in (2.5, "4", True):
        with pytest.raises(ValueError, match="1 to 6 digits"):
            build("lfq").prefix(wrong)
    with pytest.raises(ValueError, match="digits to keep from 1 to 6"):
        build("lfq")(latents, digits=0)
    with pytest.raises(ValueError, match="in \\[0, 1\\]"):
        build("fsq", dropout=2.0)
    with pytest.raises(ValueError, match=r"project=true"):
        build_quantizer("fsq", dim=2, levels=[3, 3], project=False).prefix(1)
    with pytest.raises(ValueError, match="no digits that could be left out"):
        build_quantizer("vq", dim=4).prefix(1)
    for outer in ("residual", "product"):
        with pytest.raises(ValueError, match="no effect inside another quantizer"):
            build_quantizer(outer, dim=16, inner={"name": "lfq", "dropout": 0.5})


def test_a_vocabulary_that_was_not_trained_to_nest_is_warned_of():
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1}
    tokenizer = build_tokenizer({"name": "image", "dim": 4, "encoder": encoder}, {"name": "lfq", "bits": 4})
    with pytest.warns(UserWarning, match="trained without dropout"):
        tokenizer.prefix(2)


def test_digits_of_digits_nest_as_well():
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 2], "blocks": 1}
    quantizer = {"name": "lfq", "bits": 6, "dropout": 0.5}
    tokenizer = build_tokenizer({"name": "image", "dim": 4, "encoder": encoder}, quantizer).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small = tokenizer.prefix(4)
        x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        assert torch.equal(small.prefix(2).encode(x).ids, tokenizer.encode(x).ids >> 4)
    assert small.quantizer.drops_digits
