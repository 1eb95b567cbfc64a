"""One network that is taming's, LlamaGen's and VQGAN+'s by its settings."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.networks import networks
from mmtok.networks.blocks2d import AttentionBlock, normalisation
from mmtok.schema import ConfigError

TAMING = {"dim": 256, "z_channels": 256, "decoder_blocks": 3, "attention": (16,), "mid_attention": True}
LLAMAGEN_16 = TAMING | {"dim": 8}
LLAMAGEN_8 = LLAMAGEN_16 | {"multipliers": (1, 2, 2, 4), "attention": (8,)}
VQGAN_PLUS = {"dim": 64, "bias": False, "latent_kernel": 1, "shortcut": "hidden"}
SMALL = {"dim": 8, "channels": 16, "multipliers": (1, 2), "blocks": 1, "groups": 4}


def build(device=None, **fields):
    with torch.device(device or "cpu"):
        return networks.build("conv2d", **({"in_channels": 3} | fields))


def shapes(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def parameters(module):
    return sum(tensor.numel() for tensor in module.parameters())


# Counts of the bodies their authors' code builds; the published, rounded ones are in the next test.
@pytest.mark.parametrize(
    ("fields", "count"),
    [(TAMING, 71_879_555), (LLAMAGEN_16, 71_752_331), (LLAMAGEN_8, 69_978_763), (VQGAN_PLUS, 54_745_539)],
    ids=["taming-f16", "llamagen-16", "llamagen-8", "vqgan+"],
)
def test_a_published_body_has_its_parameters(fields, count):
    assert parameters(build("meta", **fields)) == count


def test_llamagen_has_the_published_size():
    codebook = 16384 * 8
    assert round((parameters(build("meta", **LLAMAGEN_16)) + codebook) / 1e6) == 72
    assert round((parameters(build("meta", **LLAMAGEN_8)) + codebook) / 1e6) == 70


def test_names_are_those_of_taming():
    found = shapes(build("meta", **TAMING))
    assert found["encoder.conv_in.weight"] == (128, 3, 3, 3)
    assert found["encoder.down.0.downsample.conv.weight"] == (128, 128, 3, 3)
    assert found["encoder.down.2.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert found["encoder.down.4.attn.1.proj_out.weight"] == (512, 512, 1, 1)
    assert found["encoder.mid.attn_1.q.weight"] == (512, 512, 1, 1)
    assert found["encoder.mid.block_2.conv2.weight"] == (512, 512, 3, 3)
    assert found["encoder.conv_out.weight"] == (256, 512, 3, 3)
    assert found["encoder.quant_conv.weight"] == (256, 256, 1, 1)
    assert found["decoder.up.4.block.2.norm1.weight"] == (512,)
    assert found["decoder.up.1.upsample.conv.weight"] == (128, 128, 3, 3)
    assert "decoder.up.0.upsample.conv.weight" not in found
    assert found["decoder.norm_out.weight"] == (128,)


def test_vqgan_plus_has_its_missing_biases_and_odd_shortcut():
    found = shapes(build("meta", **VQGAN_PLUS))
    assert "encoder.conv_in.bias" not in found
    assert "encoder.down.0.block.0.conv1.bias" not in found
    assert found["encoder.down.0.downsample.conv.bias"] == (128,)
    assert found["encoder.down.2.block.0.nin_shortcut.weight"] == (256, 256, 1, 1)
    assert found["encoder.conv_out.weight"] == (64, 512, 1, 1)
    assert found["decoder.conv_in.bias"] == (512,)
    assert not any("attn" in name for name in found)


@pytest.mark.parametrize(
    "fields",
    [{}, {"attention": (2,)}, {"patch": 2}, {"resample": "pool"}, {"norm": "none"}, {"mid_blocks": 0},
     {"z_channels": 12}, {"shortcut": "hidden", "bias": False}, {"decoder_blocks": 2}],
    ids=str,
)  # fmt: skip
def test_every_option_keeps_the_shape_of_a_picture(fields):
    net = build(**(SMALL | fields))
    x = torch.randn(2, 3, 16, 24)
    z = net.encoder(x)
    assert z.shape == (2, 8, 16 // net.downsample, 24 // net.downsample)
    assert net.decoder(z).shape == x.shape


def test_downsampling_pads_right_and_below():
    net = build(**SMALL)
    down = net.encoder.down[0].downsample
    x = torch.randn(1, 16, 6, 6)
    want = F.conv2d(F.pad(x, (0, 1, 0, 1)), down.conv.weight, down.conv.bias, stride=2)
    torch.testing.assert_close(down(x), want)


def test_attention_is_softmax_of_scaled_products():
    block = AttentionBlock(8, groups=4)
    x = torch.randn(2, 8, 3, 5)
    normed = block.norm(x)
    q, k, v = (layer(normed).flatten(2) for layer in (block.q, block.k, block.v))
    weights = torch.softmax(torch.einsum("bci,bcj->bij", q, k) * 8**-0.5, -1)
    mixed = torch.einsum("bij,bcj->bci", weights, v).unflatten(2, (3, 5))
    torch.testing.assert_close(block(x), x + block.proj_out(mixed))


@pytest.mark.parametrize(("channels", "groups", "want"), [(128, 32, 32), (24, 32, 24), (48, 32, 24), (6, 4, 3)])
def test_groups_shrink_until_they_divide(channels, groups, want):
    assert normalisation(channels, "group", groups).num_groups == want


def test_checkpointing_changes_memory_but_not_gradients():
    plain = build(**SMALL)
    frugal = build(**SMALL, gradient_checkpointing=True)
    frugal.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 8, 8)
    for net in (plain, frugal):
        net.decoder(net.encoder(x)).square().mean().backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), frugal.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_the_layout_of_weights_changes_no_value():
    plain, last = build(**SMALL), build(**SMALL, channels_last=True)
    last.load_state_dict(plain.state_dict())
    assert last.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    z = last.encoder(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert z.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain.encoder(torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))), z)


def test_compiling_keeps_the_names_of_the_state():
    net = build(**SMALL)
    names = list(net.state_dict())
    net.encoder.compile(backend="aot_eager")
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(net.encoder(x), type(net.encoder).forward(net.encoder, x))
    assert list(net.state_dict()) == names


def test_the_last_layer_is_the_decoders_last_convolution():
    net = build(**SMALL)
    assert net.last_layer is net.decoder.conv_out.weight


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attention": (16,)}, r"factors \[16\].*\[1, 2\]"),
        ({"multipliers": ()}, "multipliers"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"decoder_blocks": 0}, "decoder_blocks must be at least 1"),
        ({"mid_blocks": 0, "mid_attention": True}, "mid_attention needs mid_blocks"),
        ({"latent_kernel": 2}, "odd"),
        ({"chanels": 3}, "Did you mean channels"),
        ({"dim": 0}, "needs in_channels and dim"),
    ],
)
def test_a_setting_that_cannot_be_built_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        build(**(SMALL | fields))


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean conv2d"):
        networks.build("conv2")
