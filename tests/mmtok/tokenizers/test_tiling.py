"""Tiles against the whole picture: equal where only convolutions mix positions, and said to differ elsewhere."""

from dataclasses import replace

import pytest
import torch

from mmtok.networks import networks
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.seams import compare, seam_ratio
from mmtok.tokenizers.tiling import Tiled

BODIES = {
    "patch": {"multipliers": (1, 2), "patch": 2, "mid_blocks": 0},
    "three levels": {"multipliers": (1, 1, 2), "mid_blocks": 1},
    "pool": {"multipliers": (1, 1), "resample": "pool", "decoder_blocks": 2, "latent_kernel": 1, "mid_blocks": 0},
    "odd patch": {"multipliers": (1, 2), "patch": 3, "mid_blocks": 0, "z_channels": 4, "shortcut": "hidden"},
    "no level": {"multipliers": (1,), "patch": 4, "mid_blocks": 1},
}
PLAIN = {"channels": 4, "blocks": 1, "norm": "none", "groups": 2}


def build(body="patch", quantizer=None, channels=3, **fields):
    torch.manual_seed(0)
    encoder = {"name": "conv2d"} | PLAIN | BODIES[body] | fields
    block = {"name": "image", "dim": 4, "channels": channels, "encoder": encoder}
    return build_tokenizer(block, quantizer or {"name": "vq", "codebook_size": 64}).eval()


def pictures(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def agree(codes, other):
    assert torch.equal(codes.lengths, other.lengths)
    assert torch.equal(codes.source_size, other.source_size)
    assert codes.grid == other.grid
    # A near tie may turn over, by the design's rule; on these pictures none does.
    assert torch.equal(codes.ids, other.ids)


# More than one tile both ways, sides that are no multiples, a strip, a picture smaller than a stride or a tile.
@pytest.mark.parametrize("size", [(64, 64), (61, 70), (7, 90), (90, 1), (3, 3), (17, 20)])
@pytest.mark.parametrize("body", BODIES)
def test_tiles_of_convolutions_give_what_the_whole_picture_gives(body, size):
    tokenizer, x = build(body), pictures(2, 3, *size)
    tiled = Tiled(tokenizer, tile=20)
    assert tiled.approximate is None
    codes = tokenizer.encode(x)
    agree(tiled.encode(x), codes)
    torch.testing.assert_close(tiled.decode(codes), tokenizer.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("body", BODIES)
def test_the_reach_is_that_of_the_gradient(body):
    torch.manual_seed(0)
    pair = networks.build("conv2d", in_channels=1, dim=2, **(PLAIN | BODIES[body])).double()
    stride, middle = pair.downsample, 12
    x = torch.rand(1, 1, 24 * stride, 24 * stride, dtype=torch.float64, requires_grad=True)
    (seen,) = torch.autograd.grad(pair.encoder(x)[0, :, middle, middle].sum(), x)
    z = torch.rand(1, 2, 24, 24, dtype=torch.float64, requires_grad=True)
    own = slice(middle * stride, (middle + 1) * stride)
    (seen_back,) = torch.autograd.grad(pair.decoder(z)[0, :, own, own].sum(), z)
    for axis in (2, 3):
        pixels = seen.abs().sum([dim for dim in range(4) if dim != axis]).nonzero().flatten()
        assert pair.reach.encoder == (own.start - pixels.min(), pixels.max() - own.stop + 1)
        positions = seen_back.abs().sum([dim for dim in range(4) if dim != axis]).nonzero().flatten()
        assert pair.reach.decoder == (middle - positions.min(), positions.max() - middle)


def test_a_position_less_than_the_reach_is_not_exact():
    """The reach is no larger than it must be."""
    tokenizer, x = build(), pictures(1, 3, 64, 64)
    tiled = Tiled(tokenizer, tile=20, overlap=8)
    assert tiled.approximate == "tiles overlap by 8 pixels and the network sees 20"
    whole = tokenizer.decode(tokenizer.encode(x))
    assert (tiled.decode(tokenizer.encode(x)) - whole).abs().max() > 1e-5
    assert Tiled(tokenizer, tile=20, overlap=20).approximate is None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"norm": "group"}, "GroupNorm of a tile see"),
        ({"mid_blocks": 1, "mid_attention": True}, "attention of a tile see"),
        ({"norm": "group", "attention": (4,)}, "GroupNorm and attention of a tile see"),
    ],
)
def test_what_sees_the_whole_picture_is_said_and_measured(fields, why):
    tokenizer, x = build(**fields), pictures(1, 3, 64, 64)
    x[..., 32:] *= 0.1  # tiles with statistics of their own
    tiled = Tiled(tokenizer, tile=20)
    assert tiled.approximate.startswith(why)
    assert compare(tiled, x).difference > 1e-5
    assert Tiled(tokenizer, tile=64).encode(x).ids.equal(tokenizer.encode(x).ids)


def test_a_network_that_does_not_know_its_reach_is_approximate(monkeypatch):
    tokenizer = build()
    monkeypatch.setattr(type(tokenizer.networks), "reach", None)
    tiled = Tiled(tokenizer, tile=32)
    assert tiled.approximate == "how far its network sees is not known"
    assert tiled.decode(tiled.encode(pictures(1, 3, 50, 50))).shape == (1, 3, 50, 50)


def test_blended_tiles_add_up_to_the_picture():
    """Where every tile says the same, blending changes nothing: the weights add up to 1 also in the corners."""
    tokenizer = build(norm="group")
    with torch.no_grad():
        tokenizer.networks.decoder.conv_out.weight.zero_()
        tokenizer.networks.decoder.conv_out.bias.fill_(0.5)
    for tile in (4, 8, 20):
        tiled = Tiled(tokenizer, tile)
        assert tiled.blend
        x = tiled.decode(tokenizer.encode(pictures(1, 3, 61, 45)))
        torch.testing.assert_close(x, torch.full((1, 3, 61, 45), 0.5))


def test_blending_lessens_a_seam():
    tokenizer, x = build(norm="group"), pictures(1, 3, 96, 96)
    x[..., 48:] *= 0.1
    hard, soft = (Tiled(tokenizer, tile=48, blend=blend) for blend in (False, True))
    codes = hard.encode(x)
    assert seam_ratio(soft.decode(codes), soft) < seam_ratio(hard.decode(codes), hard)


def test_a_seam_is_a_step_where_tiles_meet():
    tiled = Tiled(build(), tile=16)
    noise = pictures(1, 1, 64, 64)
    assert seam_ratio(noise, tiled) == pytest.approx(1, abs=0.2)
    noise[..., 32:] += 4
    assert seam_ratio(noise, tiled) > 1.5


def test_codes_of_residual_levels_and_a_budget():
    tokenizer, x = build(quantizer={"name": "rq", "codebook_size": 16, "depth": 3}), pictures(2, 3, 50, 33)
    tiled = Tiled(tokenizer, tile=20)
    for budget in (None, 2):
        codes = tiled.encode(x, budget=budget)
        agree(codes, tokenizer.encode(x, budget=budget))
        torch.testing.assert_close(tiled.decode(codes), tokenizer.decode(codes), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"budget=4, .* Use 1 to 3"):
        tiled.encode(x, budget=4)


def test_grey_pictures_come_in_tiles():
    tokenizer, x = build(channels=1), pictures(1, 1, 41, 50)
    tiled = Tiled(tokenizer, tile=16)
    assert tiled.decode(tiled.encode(x)).shape == x.shape
    agree(tiled.encode(x), tokenizer.encode(x))


def test_codes_of_several_sizes_are_cut_as_the_whole_is():
    tokenizer = build()
    codes = tokenizer.encode(pictures(2, 3, 40, 40))
    codes = replace(codes, source_size=torch.tensor([[37, 40], [38, 39]]))
    x = Tiled(tokenizer, tile=16).decode(codes)
    torch.testing.assert_close(x, tokenizer.decode(codes), atol=1e-5, rtol=0)


def test_tiles_are_of_nearly_one_size():
    tiled = Tiled(build(), tile=16)
    assert tiled.borders(68, 10) == ([12, 24, 40, 52], [])
    assert tiled.count(68, 10) == 5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tile": 3}, r"tile=3 is smaller than the stride of 4 pixels\. Use 4 or more"),
        ({"overlap": -1}, "overlap=-1 is negative"),
    ],
)
def test_tiles_that_cannot_be_are_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Tiled(build(), **settings)


def test_what_a_whole_picture_is_refused_for_tiles_are_refused_for():
    tokenizer = build()
    tiled = Tiled(tokenizer, tile=16)
    with pytest.raises(ValueError, match="divide by 127"):
        tiled.encode(torch.full((1, 3, 40, 40), 255.0))
    with pytest.raises(ValueError, match="lengths"):
        tiled.encode(pictures(1, 3, 40, 40), torch.tensor([3]))
    with pytest.raises(ValueError, match="need their grid"):
        tiled.decode(replace(tokenizer.encode(pictures(1, 3, 8, 8)), grid=None))


def test_a_quantizer_within_one_that_needs_the_whole_picture_is_refused(monkeypatch):
    tokenizer = build(quantizer={"name": "rq", "codebook_size": 16, "depth": 2})
    inner = next(module for module in tokenizer.quantizer.modules() if type(module).__name__ == "VQ")
    monkeypatch.setattr(type(inner), "pointwise", False)
    with pytest.raises(ValueError, match="needs the whole picture"):
        Tiled(tokenizer)


def test_the_activations_are_those_of_a_tile(monkeypatch):
    """No call of the networks sees more than a tile and its surroundings, however big the picture."""
    tokenizer, seen = build(), []
    for part in (tokenizer.networks.encoder, tokenizer.networks.decoder):
        part.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2:]))
    tiled = Tiled(tokenizer, tile=32)
    tiled.decode(tiled.encode(pictures(1, 3, 200, 120)))
    count = tiled.count(200, 120)
    assert len(seen) == 2 * count
    assert max(max(shape) for shape in seen[:count]) <= 32 + 20 + 20
    assert max(max(shape) for shape in seen[count:]) <= (32 // 4) + 5 + 5
