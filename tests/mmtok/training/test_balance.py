"""Terms scaled by the length of their gradients where they meet."""

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.training.balance import MOST, balanced


def terms(values):
    return {"pixel": 3 * values.square().mean(), "other": values.sum() / 100, "meaning": 1e-3 * values.abs().sum()}


def length(term, values):
    return torch.autograd.grad(term, values, retain_graph=True)[0].norm()


@pytest.mark.parametrize("weight", [1.0, 0.1])
def test_a_scaled_term_pulls_with_its_weight_times_what_the_others_pull_with(weight):
    values = torch.randn(2, 3, 4, requires_grad=True)
    plain = terms(values)
    found = balanced(plain, {"meaning": weight}, values)
    assert found["pixel"] is plain["pixel"]
    torch.testing.assert_close(
        length(found["meaning"], values), weight * length(plain["pixel"] + plain["other"], values)
    )


def test_several_are_scaled_alike_and_none_changes_another():
    values = torch.randn(2, 3, 4, requires_grad=True)
    found = balanced(terms(values), {"other": 1.0, "meaning": 2.0}, values)
    alone = length(terms(values)["pixel"], values)
    torch.testing.assert_close(length(found["other"], values), alone)
    torch.testing.assert_close(length(found["meaning"], values), 2 * alone)


def test_a_term_without_a_gradient_is_bounded_and_validation_scales_nothing():
    values = torch.randn(2, 3, 4, requires_grad=True)
    dead = {"pixel": values.square().mean(), "meaning": 0 * values.sum() + 1}
    assert balanced(dead, {"meaning": 1.0}, values)["meaning"] <= MOST
    with torch.no_grad():
        assert balanced(terms(values), {"meaning": 1.0}, values)["meaning"] == terms(values)["meaning"]


@pytest.mark.parametrize("name", ["rq", "split"])
def test_a_term_of_the_first_level_is_measured_there(name):  # it is no function of all levels' values
    torch.manual_seed(0)
    out = build_quantizer(name, dim=4)(torch.randn(2, 3, 4, requires_grad=True))
    plain = {"pixel": 100 * out.values.square().mean(), "meaning": 1e-3 * out.first.abs().sum()}
    found = balanced(plain, {"meaning": 0.5}, out.values, out.first)
    torch.testing.assert_close(length(found["meaning"], out.first), 0.5 * length(plain["pixel"], out.values))
