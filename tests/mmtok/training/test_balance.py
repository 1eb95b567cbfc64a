"""Terms scaled by the length of their gradients where they meet."""

import pytest
import torch

from benchmarks import ddp
from mmtok.config import parse_config
from mmtok.quantizers import build_quantizer
from mmtok.schema import ConfigError
from mmtok.training.balance import MOST, balanced
from mmtok.training.module import TokenizerModule


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


def test_terms_with_nothing_to_compare_them_with_are_refused(tmp_path):
    tree = ddp.tree("unified", 1, tmp_path, 2)
    alone = tree | {"loss": {"meaning": tree["loss"]["meaning"]}}
    with pytest.raises(ConfigError, match=r"loss.meaning.balance=true scales.*and there are none"):
        TokenizerModule(parse_config(alone))
    frozen = tree | {"optim": tree["optim"] | {"freeze": ["encoder"]}}
    with pytest.raises(ConfigError, match=r"which optim.freeze stops. Use loss.meaning.balance=false"):
        TokenizerModule(parse_config(frozen))


def test_networks_compile_beside_gradients_that_are_measured(tmp_path):  # image.md trap 18: donated buffers
    module = TokenizerModule(parse_config(ddp.tree("unified", 1, tmp_path, 2)))
    module.compile_networks()
    try:
        assert not torch._functorch.config.donated_buffer
    finally:
        torch._functorch.config.donated_buffer = True
