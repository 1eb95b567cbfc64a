"""Entropy terms of quantizers that look codes up."""

import pytest
import torch

from mmtok.quantizers import build_quantizer

FIELDS = {"codebook_size": 32, "entropy_weight": 0.3, "entropy_temperature": 0.5, "diversity": 0.7}


def build(name, **fields):
    torch.manual_seed(0)
    return build_quantizer(name, dim=8, **FIELDS, **fields)


def latents():
    return torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "fields"), [("vq", {}), ("vq", {"learn": "gradient"}), ("vq", {"l2": True}), ("simvq", {}), ("ibq", {})]
)
def test_both_entropies_are_those_of_the_softmax_over_all_codes(name, fields):
    """image.md traps 12, 15: the mean of entropies low, the entropy of the mean high."""
    quantizer, z = build(name, **fields), latents().requires_grad_()
    out = quantizer(z)
    x, codes = quantizer._normalise(z).flatten(0, 1), quantizer._codes()
    scores = x @ codes.t() if name == "ibq" else -(x[:, None] - codes).square().sum(-1)
    p = (scores / 0.5).softmax(1)
    want = {
        "sample_entropy": 0.3 * torch.special.entr(p).sum(1).mean(),
        "codebook_entropy": -0.3 * 0.7 * torch.special.entr(p.mean(0)).sum(),
    }
    found = {name: out.losses[name] for name in want}
    torch.testing.assert_close(found, want)
    inputs = [z, *quantizer.parameters()]
    ours, dense = (torch.autograd.grad(sum(losses.values()), inputs, allow_unused=True) for losses in (found, want))
    torch.testing.assert_close(ours, dense, rtol=1e-3, atol=1e-6)


def test_they_are_left_out_where_nobody_asked_or_trains():  # image.md trap 15: entropy computed at weight 0
    assert "sample_entropy" not in build_quantizer("vq", dim=8)(latents()).losses
    assert "sample_entropy" not in build("vq").eval()(latents()).losses
    assert "sample_entropy" in build("rq").train()(latents()).losses


def test_masked_latents_are_in_neither():
    mask = torch.arange(30) < torch.tensor([[30], [7]])
    padded = build("ibq")(latents().masked_fill(~mask[..., None], torch.nan), mask)
    alone = build("ibq")(latents()[mask][None])
    torch.testing.assert_close(padded.losses, alone.losses)


def test_the_entropy_of_the_mean_spreads_latents_over_codes():
    z, used = torch.nn.Parameter(0.02 * latents()), {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        quantizer = build_quantizer("vq", dim=8, codebook_size=32, l2=True, entropy_weight=weight, diversity=4.0)
        x = torch.nn.Parameter(z.detach() + 1)
        optimizer = torch.optim.Adam([x], 3e-2)
        for _ in range(60):
            optimizer.zero_grad()
            sum(quantizer(x).losses.values()).backward()
            optimizer.step()
        used[weight] = int((quantizer(x).stats["counts"] > 0).sum())
    assert used[1.0] > 2 * used[0.0], used


def test_a_temperature_of_zero_is_named():
    with pytest.raises(ValueError, match="entropy_temperature must be above 0"):
        build_quantizer("vq", dim=8, entropy_temperature=0.0)
