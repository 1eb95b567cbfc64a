"""Pictures to codes and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtok.codes import Codes
from mmtok.schema import ConfigError, parse, to_plain
from mmtok.tokenizers import build_tokenizer, tokenizers

ENCODER = {"name": "conv2d", "channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "groups": 4, "mid_blocks": 1}


def build(quantizer=None, **fields):
    torch.manual_seed(0)
    block = {"name": "image", "dim": 8, "image_size": 16, "encoder": ENCODER} | fields
    return build_tokenizer(block, quantizer or {"name": "fsq"})


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Sizes below, at and beside the stride of 4.
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (3, 50), (17, 21), (5, 4)])
def test_codes_decode_to_the_forward_reconstruction(size):
    """image.md trap 16."""
    tokenizer, x = build().eval(), pictures(2, 3, *size)
    out = tokenizer(x)
    codes = tokenizer.encode(x)
    assert codes.grid == tuple(-(-side // 4) for side in size)
    assert codes.ids.shape == (2, 1, codes.grid[0] * codes.grid[1])
    assert codes.source_size.tolist() == [list(size)] * 2
    assert torch.equal(codes.ids, out.quantized.ids)
    decoded = tokenizer.decode(codes)
    assert decoded.shape == x.shape
    torch.testing.assert_close(decoded, out.x)


def test_padding_repeats_the_edge():
    tokenizer, x = build().eval(), pictures(1, 3, 15, 14)
    padded = torch.cat([x, x[:, :, -1:]], 2)
    padded = torch.cat([padded, padded[..., -1:], padded[..., -1:]], 3)
    torch.testing.assert_close(tokenizer.embed(x).z, tokenizer.embed(padded).z)


def test_codes_of_one_grid_and_several_sizes_share_a_batch():
    tokenizer = build().eval()
    sizes = [(16, 16), (15, 13)]
    each = [tokenizer.encode(pictures(1, 3, *size, seed=i)) for i, size in enumerate(sizes)]
    joined = Codes(
        torch.cat([codes.ids for codes in each]),
        torch.cat([codes.lengths for codes in each]),
        torch.cat([codes.source_size for codes in each]),
        grid=each[0].grid,
    )
    together = tokenizer.to_pil(tokenizer.decode(joined), joined.source_size)
    alone = [tokenizer.to_pil(tokenizer.decode(codes))[0] for codes in each]
    for a, b, size in zip(together, alone, sizes, strict=True):
        assert a.size == b.size == size[::-1]
        # Convolutions differ by 1e-7 between batch sizes, which may turn a rounding.
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b)).max() <= 1


def test_encoding_while_training_is_deterministic_and_leaves_the_mode_alone():
    tokenizer, x = build(encoder=ENCODER | {"dropout": 0.5}), pictures(2, 3, 16, 16)
    tokenizer.train()
    tokenizer.networks.decoder.mid.eval()
    before = {name: module.training for name, module in tokenizer.named_modules()}
    first = tokenizer.encode(x)
    assert torch.equal(first.ids, tokenizer.encode(x).ids)
    assert torch.equal(first.ids, tokenizer.eval().encode(x).ids)
    tokenizer.train()
    tokenizer.networks.decoder.mid.eval()
    torch.testing.assert_close(tokenizer.decode(first), tokenizer.decode(first))
    assert {name: module.training for name, module in tokenizer.named_modules()} == before


def test_the_mode_returns_after_an_error():
    tokenizer = build().train()
    with pytest.raises(ValueError, match="lengths"):
        tokenizer.encode(pictures(1, 3, 8, 8), torch.tensor([3]))
    assert tokenizer.networks.encoder.training


def test_gradients_reach_the_encoder_and_the_bypass_skips_the_quantizer():
    tokenizer, x = build(), pictures(1, 3, 8, 8)
    out = tokenizer(x)
    out.x.square().mean().backward()
    assert tokenizer.networks.encoder.conv_in.weight.grad.abs().sum() > 0
    values = tokenizer.quantizer.relax(out.latents.z)
    torch.testing.assert_close(tokenizer.bypass(out.latents, (8, 8)), tokenizer.synthesise(values, (2, 2), (8, 8)))


def test_the_spec_says_what_a_position_is():
    spec = build().spec
    assert (spec.modality, spec.downsample, spec.channels) == ("image", 4, 3)
    assert spec.codebook_sizes == (1000,)


def test_grey_pictures():
    tokenizer = build(channels=1).eval()
    x = tokenizer.preprocess(np.zeros((9, 9), np.uint8))
    assert tokenizer.decode(tokenizer.encode(x)).shape == (1, 1, 9, 9)


def test_preprocessing_fits_a_picture_to_the_training_size():
    tokenizer = build()
    source = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert tokenizer.preprocess(source).shape == (1, 3, 40, 60)
    assert tokenizer.preprocess(source, fit=True).shape == (1, 3, 16, 16)
    assert tokenizer.preprocess(source, resize=20).shape == (1, 3, 20, 30)
    x = tokenizer.preprocess(source, resize=20, crop=(8, 12))
    assert x.shape == (1, 3, 8, 12)
    tokenizer.check(x)


def test_a_picture_outside_its_range_is_refused_before_encoding():
    with pytest.raises(ValueError, match="divide by 127"):
        build().encode(torch.full((1, 3, 8, 8), 255.0))


def test_codes_without_a_grid_are_refused():
    tokenizer = build()
    codes = replace(tokenizer.encode(pictures(1, 3, 8, 8)), grid=None)
    with pytest.raises(ValueError, match="need their grid"):
        tokenizer.decode(codes)


def test_the_dims_are_filled_in_and_survive_a_round_trip():
    config = build().config
    assert (config.encoder.in_channels, config.encoder.dim) == (3, 8)
    plain = to_plain(config)
    assert plain["encoder"]["dim"] == 8
    assert tokenizers.parse(plain) == config
    assert parse(type(config), {key: value for key, value in plain.items() if key != "name"}) == config


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"encoder": ENCODER | {"dim": 9}}, "encoder.dim=9 does not fit the tokenizer's 8"),
        ({"channels": 2}, "channels must be 3"),
        ({"image_size": 0}, "image_size must be positive"),
        ({"encoder": ENCODER | {"blokcs": 2}}, "tokenizer.encoder.blokcs is no field of 'conv2d'. Did you mean blocks"),
        ({"encoder": {"name": "conv3d"}}, "no network 'conv3d'. Did you mean conv2d"),
    ],
)
def test_a_wrong_setting_is_named(fields, says):
    with pytest.raises(ConfigError, match=says):
        build(**fields)


def test_compiled_networks_give_the_same_codes():
    tokenizer, x = build().eval(), pictures(1, 3, 16, 16)
    want = tokenizer.encode(x)
    tokenizer.networks.encoder.compile(backend="aot_eager")
    assert torch.equal(tokenizer.encode(x).ids, want.ids)


def test_the_fingerprint_is_of_the_weights_whatever_their_layout():
    tokenizer = build()
    before = tokenizer.fingerprint()
    assert tokenizer.to(memory_format=torch.channels_last).fingerprint() == before
    with torch.no_grad():
        next(tokenizer.parameters()).add_(1e-3)
    assert tokenizer.fingerprint() != before


def test_a_budget_drops_levels_where_there_are_levels_to_drop():
    x = pictures(1, 3, 8, 8)
    codes = build(quantizer={"name": "rq", "codebook_size": 8, "depth": 3}).encode(x, budget=2)
    assert (codes.ids[:, :2] >= 0).all()
    assert (codes.ids[:, 2] == -1).all()
    for quantizer in ({"name": "pq", "codebook_size": 8}, {"name": "fsq"}):
        with pytest.raises(ValueError, match=r"depth of 1\. Only residual"):
            build(quantizer=quantizer).encode(x, budget=2)
