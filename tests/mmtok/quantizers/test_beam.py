import itertools

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.search import nearest, nearest_few


@pytest.fixture
def latents():
    return torch.randn(4, 30, 8, generator=torch.Generator().manual_seed(0))


def rq(**fields):
    torch.manual_seed(0)
    return build_quantizer("rq", dim=8, **({"codebook_size": 16, "depth": 3} | fields))


def error(quantizer, z):
    return (quantizer(z).values - z).square().sum(-1)


@pytest.mark.parametrize("shared", [False, True])
def test_wider_beams_never_lose_on_the_whole_and_win(latents, shared):
    errors = [error(rq(beam=width, shared=shared).eval(), latents) for width in (1, 4, 16)]
    assert errors[1].mean() < (0.99 if shared else 0.97) * errors[0].mean()
    assert errors[2].mean() <= errors[1].mean()


def test_a_beam_as_wide_as_all_paths_finds_the_best_sum(latents):
    quantizer = rq(codebook_size=4, depth=3, beam=16).eval()
    z = latents[:1, :10]
    tables = [part.codebook for part in quantizer.parts]
    paths = torch.tensor(list(itertools.product(range(4), repeat=3)))
    sums = sum(table[paths[:, level]] for level, table in enumerate(tables))
    best = torch.cdist(z[0], sums).argmin(1)
    assert torch.equal(quantizer.encode(z)[0].T, paths[best])


def test_a_beam_of_one_is_the_greedy_search_and_training_has_its_own(latents):
    greedy = rq()
    for mode in (True, False):
        greedy.train(mode)
        other = rq(beam=1 if not mode else 8, train_beam=8 if not mode else 1).train(mode)
        assert torch.equal(other(latents).ids, greedy(latents).ids)
    assert not torch.equal(rq(train_beam=8)(latents).ids, rq()(latents).ids)


def test_losses_stats_and_gradients_are_of_the_chosen_path(latents):
    """image.md trap 16: forward values are what the ids decode to, whichever way they were chosen."""
    quantizer = rq(train_beam=6)
    z = latents.requires_grad_()
    out = quantizer(z)
    assert torch.equal(quantizer.decode(out.ids), out.values)
    for level in range(3):
        counts = torch.bincount(out.ids[:, level].flatten(), minlength=16)
        assert torch.equal(out.stats[f"{level}.counts"].long(), counts)
    want, left = 0.0, z.detach()
    for level, part in enumerate(quantizer.parts):
        codes = part.codebook[out.ids[:, level]]
        want, left = want + 0.25 * (left - codes).square().mean(), left - codes
    torch.testing.assert_close(out.losses["commitment"], want)
    assert torch.equal(torch.autograd.grad(out.values.sum(), z)[0], torch.ones_like(z))


def test_a_path_is_the_best_at_the_depth_that_is_kept(latents):
    quantizer, shallow = rq(beam=4).eval(), rq(beam=4, depth=2).eval()
    shallow.load_state_dict({k: v for k, v in quantizer.state_dict().items() if not k.startswith("parts.2")})
    out = quantizer(latents, levels=torch.tensor([1, 2, 3, 2]))
    assert torch.equal(out.ids[1, :2], shallow(latents).ids[1])
    assert torch.equal(out.ids[0, :1], rq(depth=1).eval()(latents).ids[0])
    assert torch.equal(out.ids[2], quantizer(latents).ids[2])
    assert (out.ids[0, 1:] == -1).all()
    torch.testing.assert_close(quantizer.decode(out.ids), out.values)


@pytest.mark.parametrize(
    "inner", ["vq", "simvq", {"name": "vq", "code_dim": 4, "l2": True}, {"name": "ibq", "l2": True}]
)
def test_any_table_of_codes_can_be_searched(latents, inner):
    torch.manual_seed(0)
    quantizer = build_quantizer("residual", dim=8, depth=3, inner=inner, beam=4).eval()
    wide = error(quantizer, latents).mean()
    torch.manual_seed(0)
    assert wide < error(build_quantizer("residual", dim=8, depth=3, inner=inner).eval(), latents).mean()


@pytest.mark.parametrize("size", [5, 4096])
def test_the_few_nearest_begin_with_the_nearest(size):
    x, codes = torch.randn(300, 8), torch.randn(size, 8)
    found = nearest_few(x, codes, 9)
    assert found.shape == (300, min(9, size))
    want = torch.cdist(x.double(), codes.double()).topk(min(9, size), largest=False).indices
    assert (found == want).float().mean() > 0.999
    assert (found[:, 0] == nearest(x, codes)).all()


def test_wrong_beams_are_named():
    with pytest.raises(ValueError, match="beam and train_beam must be 1 path or more"):
        rq(beam=0)
    with pytest.raises(ValueError, match="beam follows codes of a table, and 'fsq' has none"):
        build_quantizer("residual", dim=8, inner="fsq", beam=2)
