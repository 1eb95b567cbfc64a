import pytest
import torch

from mmtok.quantizers import build_quantizer


def ibq(**fields):
    torch.manual_seed(0)
    return build_quantizer("ibq", dim=8, **({"codebook_size": 64} | fields))


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("l2", [False, True])
def test_values_losses_and_gradients_are_the_authors(l2):  # image.md trap 13
    quantizer = ibq(l2=l2, temperature=0.5, commitment_weight=0.9, codebook_weight=0.3, index_weight=0.7)
    z, g = draws(2, 30, 8).requires_grad_(), draws(2, 30, 8, seed=1)
    out = quantizer(z)
    x = torch.nn.functional.normalize(z, dim=-1) if l2 else z
    codes = torch.nn.functional.normalize(quantizer.codebook, dim=-1) if l2 else quantizer.codebook
    p = (x @ codes.t() / 0.5).softmax(-1)
    hard = torch.nn.functional.one_hot(p.argmax(-1), 64).float()
    soft, chosen = (hard + (p - p.detach())) @ codes, hard @ codes
    want = {
        "index": 0.7 * (soft - x).square().mean(),
        "commitment": 0.9 * (chosen.detach() - x).square().mean(),
        "codebook": 0.3 * (chosen - x.detach()).square().mean(),
    }
    assert torch.equal(out.ids[:, 0], p.argmax(-1))
    torch.testing.assert_close(out.values, soft)
    torch.testing.assert_close(dict(out.losses), want)
    grads = [
        torch.autograd.grad((values * g).sum() + sum(losses.values()), [z, quantizer.codebook], retain_graph=True)
        for values, losses in ((out.values, out.losses), (soft, want))
    ]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_every_code_gets_a_gradient_at_every_step():
    quantizer = ibq()
    out = quantizer(draws(1, 4, 8))
    (found,) = torch.autograd.grad(out.values.square().sum(), quantizer.codebook)
    assert (found.abs().amax(1) > 0).all()
    assert len(out.ids.unique()) <= 4


def test_margins_are_of_products():
    quantizer = ibq(codebook_size=2)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.eye(2, 8))
    z = torch.tensor([[[3.0, 1, 0, 0, 0, 0, 0, 0]]])
    assert quantizer.margins(z).tolist() == [[4.0]]


def test_it_learns_clusters():
    z = 3 * draws(16, 8).repeat_interleave(20, 0)[None] + 0.05 * draws(1, 320, 8, seed=1)
    quantizer = ibq(codebook_size=32)
    optimizer = torch.optim.Adam(quantizer.parameters(), 3e-2)
    before = (quantizer(z).values - z).square().mean()
    for _ in range(200):
        optimizer.zero_grad()
        sum(quantizer(z).losses.values()).backward()
        optimizer.step()
    assert (quantizer(z).values - z).square().mean() < 0.2 * before
