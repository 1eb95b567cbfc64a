import pytest
import torch

from mmtok.quantizers import build_quantizer


@pytest.fixture
def latents():
    return torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0))


def trained(latents, **fields):
    torch.manual_seed(0)
    quantizer = build_quantizer("rq", dim=8, codebook_size=16, depth=4, init="kmeans", **fields)
    for _ in range(5):
        quantizer.update(quantizer(latents).stats)
    return quantizer.eval()


@pytest.mark.parametrize("shared", [False, True])
def test_every_level_brings_the_values_nearer(latents, shared):
    quantizer = trained(latents, shared=shared)
    ids = quantizer(latents).ids
    errors = [(quantizer.decode(ids[:, :n]) - latents).square().mean() for n in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert len(quantizer.parts) == (1 if shared else 4)


def test_dropped_levels_have_no_id_and_no_value(latents):
    quantizer = trained(latents)
    whole, levels = quantizer(latents), torch.tensor([1, 2, 3, 4])
    out = quantizer(latents, levels=levels)
    for item, kept in enumerate(levels.tolist()):
        assert torch.equal(out.ids[item, :kept], whole.ids[item, :kept])
        assert (out.ids[item, kept:] == -1).all()
        short = quantizer.decode(whole.ids[item : item + 1, :kept])
        torch.testing.assert_close(out.values[item : item + 1], short)
    torch.testing.assert_close(quantizer.decode(out.ids), out.values)


def test_the_trainer_draws_levels_by_a_generator_of_its_own():
    quantizer = build_quantizer("rq", dim=8, depth=4, dropout=0.5)
    drawn = quantizer.draw_levels(4000, torch.Generator().manual_seed(0))
    assert drawn.min() == 1
    assert drawn.max() == 4
    assert 0.58 < (drawn == 4).float().mean() < 0.67  # 1 - 0.5 * 3 / 4
    assert build_quantizer("rq", dim=8).draw_levels(4, torch.Generator()) is None


@pytest.mark.parametrize(("residual_grad", "levels"), [("stop", 4), ("pass", 1)])
def test_commitments_reach_the_latents_as_chosen(latents, residual_grad, levels):
    quantizer = trained(latents, residual_grad=residual_grad).train()
    latents.requires_grad_()
    (found,) = torch.autograd.grad(quantizer(latents).losses["commitment"], latents)
    want, residual = torch.zeros_like(latents), latents.detach()
    for part in list(quantizer.parts)[:levels]:
        at = residual.clone().requires_grad_()
        out = part(at)
        want += torch.autograd.grad(out.losses["commitment"], at)[0]
        residual = residual - out.values.detach()
    torch.testing.assert_close(found, want)


def test_shrunken_grids_refine_each_other(latents):
    def error(**fields):
        torch.manual_seed(0)
        inner = {"name": "fsq", "levels": [5] * 8}
        quantizer = build_quantizer("residual", dim=8, inner=inner, depth=3, **fields)
        for part in quantizer.parts:  # the projections a training would find: the identity, before the grid's squashing
            for linear in (part.project_in, part.project_out):
                torch.nn.init.eye_(linear.weight)
                torch.nn.init.zeros_(linear.bias)
            part.project_in.weight.data *= 1.5
        return (quantizer(0.5 * latents).values - 0.5 * latents).square().mean()

    assert error(shrink=0.25) < 0.5 * error(shrink=1.0)


def test_a_level_says_what_it_took_off(latents):
    stats = trained(latents)(latents).stats
    for level in range(4):
        assert stats[f"{level}.residual_sq"] < stats[f"{level}.input_sq"]


def test_decoding_part_of_a_level_is_refused():
    quantizer = build_quantizer("residual", dim=8, depth=2, inner={"name": "pq", "codebook_size": 4})
    with pytest.raises(ValueError, match="3 levels"):
        quantizer.decode(torch.zeros(1, 3, 5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("field", "value"), [("depth", 0), ("dropout", 1.5), ("residual_grad", "some"), ("codebok", 1)]
)
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        build_quantizer("rq", dim=8, **{field: value})


def test_an_inner_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"inner\.dim=4 does not fit dim=8"):
        build_quantizer("residual", dim=8, inner={"name": "vq", "dim": 4})
