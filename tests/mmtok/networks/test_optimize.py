import copy

import pytest
import torch

from mmtok.networks import networks
from mmtok.networks.conv1d import Conv1d, ConvTranspose1d
from mmtok.networks.optimize import PackedConv1d, PackedConvTranspose1d, optimize
from mmtok.networks.weight_norm import fold_state

KINDS = {
    "causal": {},
    "encodec": {"shortcut": "conv", "core": "lstm", "pad_mode": "reflect"},
    "dac": {"causal": False, "activation": "snake", "dilations": (1, 3, 9), "residual_kernel": 7, "tanh": True,
            "transpose_padding": "dac"},
    "stereo": {"in_channels": 2, "causal": False},
}  # fmt: skip


def build(name):
    torch.manual_seed(0)
    fields = {"in_channels": 1, "dim": 16, "channels": 8, "strides": (2, 3, 5)} | KINDS[name]
    net = networks.build("seanet", **fields).eval()
    if name == "dac":  # what snake adds would grow from layer to layer to levels of which a sine keeps no digits
        for part in net.modules():
            if isinstance(part, Conv1d | ConvTranspose1d):
                part.weight = 0.6 * part.weight.detach()
    return net


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
@torch.no_grad()
def test_an_optimised_network_is_the_same_whole_and_in_steps(name, batch):
    net = build(name)
    fast = optimize(net)
    x = torch.randn(batch, net.config.in_channels, 40 * net.downsample)
    z = net.encoder(x)
    y = net.decoder(z)
    torch.testing.assert_close(fast.encoder(x), z, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.decoder(z), y, atol=1e-5, rtol=0)
    # Frame by frame, too, where an LSTM goes another way.
    for half, whole, want, size in ((fast.encoder, x, z, 77), (fast.decoder, z, y, 5), (fast.decoder, z, y, 1)):
        state, pieces = half.init_state(batch), []
        for piece in whole.split(size, 2):
            got, state = half.step(piece, state)
            pieces.append(got)
        torch.testing.assert_close(torch.cat([*pieces, half.finish(state)], 2), want, atol=1e-5, rtol=0)


@torch.no_grad()
def test_it_is_packed_and_its_state_is_the_folded_one():
    net = build("causal")
    fast = optimize(net)
    kinds = {type(part) for part in fast.modules()}
    if torch.backends.mkldnn.is_available():
        assert kinds >= {PackedConv1d, PackedConvTranspose1d}
    folded = fold_state(net.state_dict())
    assert fast.state_dict().keys() == folded.keys()
    for name, value in fast.state_dict().items():
        torch.testing.assert_close(value, folded[name])
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    assert all(parameter.requires_grad for parameter in net.parameters())


@torch.no_grad()
def test_it_can_be_copied():
    fast = optimize(build("causal"))
    x = torch.randn(1, 1, 4 * fast.downsample)
    assert torch.equal(copy.deepcopy(fast).encoder(x), fast.encoder(x))


@torch.no_grad()
def test_where_the_layout_does_not_fit_the_plain_weight_is_used():
    net = build("causal")
    fast = optimize(net).double()
    x = torch.randn(1, 1, 4 * net.downsample, dtype=torch.float64)
    torch.testing.assert_close(fast.decoder(fast.encoder(x)), net.double().decoder(net.encoder(x)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert optimize(net.float()).encoder(x.float()).dtype == torch.bfloat16


def test_snake_is_the_same_with_and_without_gradients():
    net = build("dac")
    snake = net.decoder.act_out
    with torch.no_grad():
        snake.alpha.uniform_(0.1, 3)
    x = torch.randn(2, snake.alpha.shape[1], 50)
    want = x + torch.sin(snake.alpha * x) ** 2 / snake.alpha
    torch.testing.assert_close(snake(x), want)
    with torch.no_grad():
        torch.testing.assert_close(snake(x), want)
