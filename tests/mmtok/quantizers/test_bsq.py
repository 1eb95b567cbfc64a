import pytest
import torch

from mmtok.quantizers import build_quantizer


def bsq(**fields):
    torch.manual_seed(0)
    return build_quantizer("bsq", dim=16, **({"bits": 6, "entropy_weight": 0.1, "temperature": 0.3} | fields))


def latents(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def corners(bits):
    return ((torch.arange(2**bits)[:, None] >> torch.arange(bits - 1, -1, -1)) & 1) * 2.0 - 1.0


def test_latents_and_codes_are_on_the_unit_sphere():
    quantizer = bsq()
    torch.testing.assert_close(quantizer.code_table().norm(dim=1), torch.ones(64))
    torch.testing.assert_close(quantizer._latents(latents(2, 9, 16)).norm(dim=-1), torch.ones(2, 9))
    torch.testing.assert_close(quantizer.code_table(), corners(6) / 6**0.5)


@pytest.mark.parametrize("bits", [1, 6, 9, 12])
def test_every_id_decodes_to_the_corner_it_names_and_back(bits):
    """image.md trap 16: the authors' decoding by indices raises."""
    quantizer = build_quantizer("bsq", dim=bits, bits=bits)
    with torch.no_grad():
        for layer in (quantizer.project_in, quantizer.project_out):
            layer.weight.copy_(torch.eye(bits))
            layer.bias.zero_()
    ids = torch.arange(2**bits)[None, None]
    values = quantizer.decode(ids)
    assert torch.equal(values[0], corners(bits) * bits**-0.5)
    assert torch.equal(quantizer.encode(values), ids)


def naive(u, group, temperature):
    """Both entropies as written: the softmax over all codes, and over those of each group of bits. u (N, d)."""
    d = u.shape[1]

    def softmax(x):
        squared = (x[:, None].double() - corners(x.shape[1]).double() / d**0.5).square().sum(-1)
        return (-squared / temperature).softmax(-1)

    sample = torch.special.entr(softmax(u)).sum(-1).mean()
    return sample, sum(torch.special.entr(softmax(part).mean(0)).sum() for part in u.split(group or d, 1))


@pytest.mark.parametrize("group", [0, 1, 2, 4, 9])
def test_losses_are_the_entropies_of_samples_and_groups_low_and_high(group):
    """image.md trap 12: BSQ's sign (peer issue 199), and sums where means are meant (peer issue 120)."""
    quantizer, z = bsq(group_size=group, diversity=0.7), latents(2, 30, 16)
    out = quantizer(z)
    u = quantizer._latents(z).flatten(0, 1)
    sample, mean = naive(u, min(group, 6), 0.3)
    torch.testing.assert_close(out.losses["sample_entropy"].double(), 0.1 * sample, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(out.losses["codebook_entropy"].double(), -0.07 * mean, rtol=1e-4, atol=1e-6)
    ours = torch.autograd.grad(sum(out.losses.values()), quantizer.project_in.weight)[0]
    want = torch.autograd.grad(0.1 * (sample - 0.7 * mean), quantizer.project_in.weight)[0]
    torch.testing.assert_close(ours, want.float(), rtol=1e-3, atol=1e-6)


def test_groups_bound_the_entropy_of_whole_codes_from_above():  # image.md section 6
    z = latents(2, 30, 16)
    whole, grouped = (-bsq(group_size=size)(z).losses["codebook_entropy"] for size in (0, 2))
    assert grouped > whole


def test_what_rounding_costs_is_bounded():
    """The paper's bound: a unit latent is nearer than sqrt(2 - 2 / sqrt(d)) to its code."""
    quantizer = bsq()
    u = quantizer._latents(latents(20, 50, 16))
    distance = (u - quantizer.code_table()[quantizer.encode(latents(20, 50, 16))[:, 0]]).norm(dim=-1)
    assert distance.max() < (2 - 2 / 6**0.5) ** 0.5


def test_default_temperature_has_finite_gradients():  # image.md trap 12: NaN where bits saturate
    quantizer = build_quantizer("bsq", dim=16, bits=18)
    z = latents(2, 9, 16).requires_grad_()
    out = quantizer(100 * z)
    (found,) = torch.autograd.grad(sum(out.losses.values()), z)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(("field", "value"), [("bits", 25), ("temperature", 0.0), ("group_size", -1)])
def test_a_wrong_field_is_named(field, value):
    with pytest.raises(ValueError, match=rf"bsq\.{field}"):
        build_quantizer("bsq", dim=4, **{field: value})
