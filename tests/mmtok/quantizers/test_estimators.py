import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.estimators import estimate, rotated


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def paper_map(e, q):
    """|q| / |e| (I - 2 r r^T + 2 q^ e^T), written out for one pair (arXiv 2410.06424, section 4.2)."""
    unit_e, unit_q = e / e.norm(), q / q.norm()
    r = (unit_e + unit_q) / (unit_e + unit_q).norm()
    return q.norm() / e.norm() * (torch.eye(len(e)) - 2 * torch.outer(r, r) + 2 * torch.outer(unit_q, unit_e))


def test_the_gradient_is_the_transposed_map_of_the_paper():
    e, q, g = draws(5, 8).requires_grad_(), draws(5, 8, seed=1), draws(5, 8, seed=2)
    (found,) = torch.autograd.grad((estimate("rotate", e, q) * g).sum(), e)
    want = torch.stack([paper_map(a, b).T @ c for a, b, c in zip(e.detach(), q, g, strict=True)])
    torch.testing.assert_close(found, want)


def test_the_map_takes_latents_to_their_codes_and_keeps_angles():
    e, q = draws(50, 8), draws(50, 8, seed=1)
    torch.testing.assert_close(rotated(e, q), q, rtol=1e-4, atol=1e-5)
    turn = paper_map(e[0], q[0]) * e[0].norm() / q[0].norm()
    torch.testing.assert_close(turn @ turn.T, torch.eye(8), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["vq", "rq", "pq"])
def test_values_are_the_decoded_ones_bit_by_bit(name):  # image.md traps 9, 16: rounding of the turn would show
    torch.manual_seed(0)
    quantizer = build_quantizer(name, dim=8, codebook_size=16, gradient="rotate")
    out = quantizer(draws(2, 30, 8))
    assert torch.equal(quantizer.decode(out.ids), out.values)


@pytest.mark.parametrize(("e", "q"), [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1e-20, 1.0)])
def test_without_a_length_the_gradient_goes_straight(e, q):  # image.md trap 9: guard zero norms
    x, codes, g = (e * draws(4, 8)).requires_grad_(), q * draws(4, 8, seed=1), draws(4, 8, seed=2)
    values = estimate("rotate", x, codes)
    assert torch.equal(values, codes)
    assert torch.equal(torch.autograd.grad((values * g).sum(), x)[0], g)


def test_an_opposite_code_has_a_finite_gradient():
    x = draws(4, 8).requires_grad_()
    (found,) = torch.autograd.grad(estimate("rotate", x, -x.detach()).sum(), x)
    assert torch.isfinite(found).all()


def test_scale_and_rotation_are_constants():  # image.md trap 9: detach scale and rotation
    x = draws(4, 8).requires_grad_()
    codes = draws(4, 8, seed=1).requires_grad_()
    found = torch.autograd.grad(estimate("rotate", x, codes).sum(), [x, codes], allow_unused=True, create_graph=True)
    assert found[1] is None
    assert not found[0].requires_grad


def test_residual_levels_turn_once_onto_their_sum():
    """image.md trap 9, RQ-VAE-Recommender #48: a turn a level adds up `depth` gradients, and none of the whole."""
    torch.manual_seed(0)
    quantizer = build_quantizer("rq", dim=8, codebook_size=16, depth=3, gradient="rotate")
    z, g = draws(2, 30, 8).requires_grad_(), draws(2, 30, 8, seed=1)
    out = quantizer(z)
    (found,) = torch.autograd.grad((out.values * g).sum(), z)
    leaf = z.detach().requires_grad_()
    (want,) = torch.autograd.grad((rotated(leaf, out.values.detach()) * g).sum(), leaf)
    torch.testing.assert_close(found, want)
