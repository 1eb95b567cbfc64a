from itertools import product as tuples
from math import prod

import pytest
import torch

from mmtok.quantizers import build_quantizer

LEVEL_SETS = [(2,), (2, 2, 2), (3, 4), (8, 5, 5, 5), (8, 6, 5), (7, 5, 5, 5, 5), (4, 4, 4, 4, 4), (16, 16, 16), (257,)]


def bare(levels):
    """The grid alone."""
    return build_quantizer("fsq", dim=len(levels), levels=list(levels), project=False).eval()


def grid(levels):
    """Latents that land on each grid point (1, prod(levels), C), the first channel fastest."""
    digits = torch.tensor(list(tuples(*[range(n) for n in reversed(levels)]))).flip(1)
    return torch.logit((digits + 0.5) / torch.tensor(levels))[None] / 1.7, digits


@pytest.mark.parametrize("levels", LEVEL_SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ids_and_grid_points_are_one_to_one(levels, dtype):  # image.md trap 11
    quantizer = bare(levels)
    z, digits = grid(levels)
    if dtype == torch.bfloat16 and max(levels) > 16:
        pytest.skip("bfloat16 latents cannot tell so many levels apart")
    out = quantizer(z.to(dtype))
    assert torch.equal(out.ids[0, 0], torch.arange(prod(levels)))
    torch.testing.assert_close(quantizer.decode(out.ids), out.values, rtol=0, atol=0)
    half = (torch.tensor(levels) - 1) / 2
    torch.testing.assert_close(out.values[0], (digits - half) / half)


@pytest.mark.parametrize("levels", LEVEL_SETS)
def test_no_latent_leaves_the_range(levels):  # image.md trap 11
    quantizer = bare(levels)
    extremes = torch.tensor([-torch.inf, -1e30, -100.0, -1e-8, 0.0, 1e-8, 100.0, 1e30, torch.inf])
    ids = quantizer(extremes[:, None].expand(-1, len(levels))[None]).ids
    assert ids.min() >= 0
    assert ids.max() < prod(levels)
    values = quantizer(torch.randn(1, 500, len(levels)) * 10).values
    assert values.abs().max() <= 1


def test_too_few_grid_points_are_refused():
    with pytest.raises(ValueError, match="at least 2"):
        build_quantizer("fsq", dim=4, levels=[8, 1])


def test_without_layers_the_channels_must_be_the_grids():
    with pytest.raises(ValueError, match="dim=6, but 4 levels"):
        build_quantizer("fsq", dim=6, project=False)


def test_without_layers_there_is_nothing_to_learn():
    assert not list(bare((8, 5)).parameters())


def test_normal_latents_use_all_grid_points_of_a_channel_alike():
    torch.manual_seed(0)
    counts = torch.bincount(bare((8,))(torch.randn(1, 100_000, 1)).ids.flatten(), minlength=8)
    assert (counts / counts.sum() - 1 / 8).abs().max() < 0.01
