import pytest
import torch

from mmtok.quantizers.noise import gumbel, row_keys
from mmtok.quantizers.soft import entropies, hard_values, soft_values


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cases():
    x, keys, bias, values = draws(300, 6), draws(40, 6, seed=1), draws(40, seed=2), draws(40, 5, seed=3)
    return [t.double().float().requires_grad_() for t in (x, keys, bias, values)]


def dense_logits(x, keys, bias, scale, noise):
    scores = x @ keys.t() + (0 if bias is None else bias)
    return (scores if noise is None else scores + gumbel(noise, len(keys))) * scale


@pytest.fixture(params=[True, False], ids=["one chunk", "many"])
def chunks(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr("mmtok.quantizers.search._cpu_bytes", lambda: 1)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("noise", [None, torch.arange(300, dtype=torch.int32)])
def test_hard_values_have_the_gradient_of_the_dense_formula(chunks, with_bias, noise):
    """image.md trap 13: equal to one-hot + softmax - sg(softmax), which holds N x K."""
    x, keys, bias, values = cases()
    bias, scale, g = bias if with_bias else None, torch.tensor(0.7), draws(300, 5, seed=4)
    p = dense_logits(x, keys, bias, scale, noise).softmax(1)
    ids = p.argmax(1)
    index = torch.nn.functional.one_hot(ids, 40).float() + (p - p.detach())
    inputs = [x, keys, values] + ([bias] if with_bias else [])
    want = torch.autograd.grad(((index @ values) * g).sum(), inputs)
    found_values = hard_values(x, keys, bias, values, ids, scale, noise)
    assert torch.equal(found_values, values[ids])
    torch.testing.assert_close(torch.autograd.grad((found_values * g).sum(), inputs), want, rtol=1e-4, atol=1e-5)


def test_soft_values_are_the_dense_ones_and_so_is_their_gradient(chunks):
    x, keys, bias, values = cases()
    scale, noise, g = torch.tensor(0.7), torch.arange(300, dtype=torch.int32), draws(300, 5, seed=4)
    dense = dense_logits(x, keys, bias, scale, noise).softmax(1) @ values
    found = soft_values(x, keys, bias, values, scale, noise)
    torch.testing.assert_close(found, dense)
    grads = [torch.autograd.grad((v * g).sum(), [x, keys, bias, values]) for v in (found, dense)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_bias", [True, False])
def test_entropies_are_the_dense_ones_and_so_is_their_gradient(chunks, with_bias):
    x, keys, bias, _ = cases()
    bias, scale, weight = bias if with_bias else None, torch.tensor(1.7), draws(300, seed=5).abs()
    inputs = [x, keys] + ([bias] if with_bias else [])
    p = dense_logits(x, keys, bias, scale, None).softmax(1)
    dense = torch.special.entr(p).sum(1), weight @ p
    found = entropies(x, keys, bias, weight, scale)
    torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-5)
    directions = draws(300, seed=6), draws(40, seed=7)
    grads = [
        torch.autograd.grad(sum((v * d).sum() for v, d in zip(pair, directions, strict=True)), inputs)
        for pair in (found, dense)
    ]
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-4)


def test_saturated_logits_have_finite_entropies_and_gradients():
    x, keys, _, _ = cases()
    entropy, mass = entropies(x, keys, None, torch.ones(300), torch.tensor(1e6))
    found = torch.autograd.grad(entropy.sum() + mass.square().sum(), [x, keys])
    assert all(torch.isfinite(g).all() for g in (entropy, mass, *found))


def test_nothing_of_the_size_of_rows_times_codes_is_ever_made(peak_bytes):
    """image.md section 6: memory O(N x chunk). N x K floats would be 128 MiB here."""
    x, keys = draws(2**13, 4).requires_grad_(), draws(2**12, 4, seed=1).requires_grad_()
    ids, scale = torch.zeros(2**13, dtype=torch.int64), torch.tensor(1.0)

    def step():
        entropy, mass = entropies(x, keys, None, torch.ones(2**13), scale)
        (hard_values(x, keys, None, keys, ids, scale).sum() + entropy.sum() + mass.square().sum()).backward()

    assert 2**20 < peak_bytes(step) < 2**24


def test_noise_is_gumbel():
    noise = gumbel(row_keys(torch.arange(50), 40), 200)
    assert noise.shape == (2000, 200)
    assert abs(noise.mean() - 0.5772) < 0.01
    assert abs(noise.var() - torch.pi**2 / 6) < 0.02
    rows, columns = torch.corrcoef(noise[:100]), torch.corrcoef(noise[:, :100].T)
    assert rows.fill_diagonal_(0).abs().max() < 0.4  # 4,950 pairs of 200: 0.28 expected
    assert columns.fill_diagonal_(0).abs().max() < 0.12
    assert noise.unique().numel() > 0.95 * noise.numel()


def test_noise_depends_on_seed_position_and_code_alone():
    whole = gumbel(row_keys(torch.tensor([5, 2**40 + 5, -7]), 9), 33).view(3, 9, 33)
    alone = gumbel(row_keys(torch.tensor([2**40 + 5]), 4), 33)
    assert torch.equal(whole[1, :4], alone)
    assert not torch.equal(whole[0], whole[1])


def test_noise_is_finite_at_both_ends(monkeypatch):
    for bits in (0, -1):
        monkeypatch.setattr("mmtok.quantizers.noise._mixed", lambda x, bits=bits: torch.full_like(x, bits))
        assert torch.isfinite(gumbel(torch.zeros(1, dtype=torch.int32), 1)).all()


def test_gradients_are_float32_where_a_loop_calls_backward_under_autocast():
    # With optimisation by hand, Lightning's autocast is still on in backward; PyTorch advises against, users do it.
    def gradients(on):
        x, keys, bias, values = cases()
        scale, ids = torch.tensor(0.7), torch.arange(300) % 40
        with torch.autocast("cpu", torch.bfloat16, enabled=on):
            with torch.autocast("cpu", enabled=False):
                hard = hard_values(x, keys, bias, values, ids, scale)
                entropy, mass = entropies(x, keys, bias, draws(300, seed=5).abs(), scale)
                loss = hard.square().sum() + entropy.sum() + mass.square().sum()
            return torch.autograd.grad(loss, [x, keys, bias, values])

    for found, wanted in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(found, wanted)
