import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.noise import gumbel as gumbel_noise
from mmtok.quantizers.noise import row_keys


def gumbel(**fields):
    torch.manual_seed(0)
    return build_quantizer("gumbel", dim=8, **({"codebook_size": 32} | fields))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SEEDS = torch.tensor([2**61 + 5, 77, 2**40, 3])


@pytest.mark.parametrize("straight", [True, False])
def test_values_and_gradients_are_the_dense_formula(straight):
    quantizer, z, g = (
        gumbel(straight=straight, temperature=0.7),
        draws(4, 9, 8).requires_grad_(),
        draws(4, 9, 8, seed=1),
    )
    out = quantizer(z, seed=SEEDS)
    noise = gumbel_noise(row_keys(SEEDS, 9), 32).view(4, 9, 32)
    p = ((quantizer.scores(z) + noise) / 0.7).softmax(-1)
    hard = torch.nn.functional.one_hot(p.argmax(-1), 32).float()
    want = (hard + (p - p.detach()) if straight else p) @ quantizer.codebook
    assert torch.equal(out.ids[:, 0], p.argmax(-1))
    torch.testing.assert_close(out.values, want)
    inputs = [z, *quantizer.parameters()]
    found, dense = (torch.autograd.grad((values * g).sum(), inputs) for values in (out.values, want))
    torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-6)


def test_codes_are_drawn_in_proportion_to_their_scores():
    quantizer, z = gumbel(codebook_size=5), draws(1, 1, 8).expand(1, 40_000, 8)
    share = quantizer(z, seed=SEEDS[:1]).stats["counts"] / 40_000
    torch.testing.assert_close(share, quantizer.scores(z[0, 0]).softmax(-1).detach(), rtol=0, atol=0.01)


def test_a_draw_depends_on_its_item_alone_and_not_on_ranks_or_padding():  # image.md trap 6, peer issue 205
    quantizer, z = gumbel(), draws(4, 9, 8)
    whole = quantizer(z, seed=SEEDS)
    for rank in range(2):
        part = quantizer(z[rank::2], seed=SEEDS[rank::2])
        assert torch.equal(part.ids, whole.ids[rank::2])
    assert torch.equal(quantizer(z[:, :5], seed=SEEDS).ids, whole.ids[..., :5])
    assert torch.equal(quantizer(z, seed=SEEDS).ids, whole.ids)
    assert not torch.equal(quantizer(z, seed=SEEDS + 1).ids, whole.ids)


def test_without_a_seed_nothing_is_drawn_and_the_global_generator_is_left_alone():
    quantizer, z = gumbel(), draws(4, 9, 8)
    state = torch.get_rng_state()
    out, drawn = quantizer(z), quantizer(z, seed=7)
    assert torch.equal(out.ids[:, 0], quantizer.scores(z).argmax(-1))
    assert not torch.equal(out.ids, drawn.ids)
    assert torch.equal(torch.get_rng_state(), state)


def test_parts_of_a_nested_quantizer_draw_apart():
    torch.manual_seed(0)
    inner = {"name": "gumbel", "codebook_size": 32}
    quantizer = build_quantizer("product", dim=16, groups=2, inner=inner, shared=True)
    assert quantizer.noisy
    same = draws(4, 9, 8).repeat(1, 1, 2)
    ids = quantizer(same, seed=SEEDS).ids
    assert (ids[:, 0] != ids[:, 1]).float().mean() > 0.5


def test_the_divergence_is_from_even_use_and_rises_with_the_updates():
    quantizer, z = gumbel(kl_weight=0.5, kl_updates=4), draws(2, 9, 8)
    assert quantizer(z).losses["kl"] == 0
    for _ in range(2):
        quantizer.update(quantizer(z).stats)
    p = quantizer.scores(z).softmax(-1)
    want = (p * (p * 32).log()).sum(-1).mean()
    torch.testing.assert_close(quantizer(z).losses["kl"], 0.25 * want)
    assert quantizer.eval()(z).losses == {}
    assert gumbel(kl_weight=0.0)(z).losses == {}


def test_the_temperature_follows_the_updates_by_half_a_cosine():
    quantizer = gumbel(temperature=1.0, temperature_end=0.2, anneal_updates=4)
    seen = []
    for _ in range(6):
        seen.append(round(float(quantizer.current_temperature()), 4))
        quantizer.update(quantizer(draws(1, 2, 8)).stats)
    assert seen == [1.0, 0.8828, 0.6, 0.3172, 0.2, 0.2]
    assert float(gumbel(anneal_updates=0).current_temperature()) == 0.0625


@pytest.mark.parametrize(("field", "value"), [("temperature", 0.0), ("temperature_end", -1.0), ("kl_updates", -1)])
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        build_quantizer("gumbel", dim=8, **{field: value})
