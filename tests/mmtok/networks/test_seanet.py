"""One network that is SoundStream's, EnCodec's and DAC's by its settings; whole and in pieces."""

import copy
import random

import pytest
import torch

from mmtok.networks import networks
from mmtok.networks.weight_norm import fold_state, fold_weight_norm, merge, split

SOUNDSTREAM = {"latent_kernel": 3, "dilations": (1, 3, 9), "residual_kernel": 7, "compress": 1}
ENCODEC = {"shortcut": "conv", "core": "lstm", "pad_mode": "reflect"}
DAC = SOUNDSTREAM | {
    "channels": 64, "decoder_channels": 1536, "strides": (2, 4, 8, 8), "activation": "snake", "causal": False,
    "tanh": True,
}  # fmt: skip
ATTENTION = {"core": "attention", "attention_heads": 2, "attention_window": 4}
MIMI = {
    "channels": 64, "strides": (4, 5, 6, 8), "latent_kernel": 3, "last_kernel": 3, "core": "attention",
    "core_at": "latents", "core_layers": 8, "core_bias": False, "core_scale": 0.01, "attention_window": 250,
    "latent_stride": 2, "norm": "none",
}  # fmt: skip
CAUSAL = {
    "plain": {}, "soundstream": SOUNDSTREAM, "lstm": {"core": "lstm"}, "attention": ATTENTION,
    "replicate": {"pad_mode": "replicate"},
    "mimi": MIMI | ATTENTION | {"core_layers": 1, "core_scale": 0.5, "attention_heads": 1},
}  # fmt: skip
CENTRED = {"snake": {"causal": False, "activation": "snake"}, "dac": DAC | {"transpose_padding": "dac"}}
SMALL = {"in_channels": 1, "dim": 6, "channels": 4, "decoder_channels": 64, "strides": (2, 3)}
EVERY = CAUSAL | CENTRED | {"encodec": ENCODEC}


def build(device=None, **fields):
    torch.manual_seed(0)
    with torch.device(device or "cpu"):
        return networks.build("seanet", **(SMALL | fields)).eval()


def small(name, **fields):
    return build(**(EVERY[name] | {key: SMALL[key] for key in ("channels", "decoder_channels", "strides")} | fields))


def in_pieces(half, x, size):
    state, pieces, start = half.init_state(x.shape[0]), [], 0
    while start < x.shape[2]:
        count = size if isinstance(size, int) else size.randrange(0, 40)
        y, state = half.step(x[..., start : start + count], state)
        pieces.append(y)
        start += count
    return torch.cat([*pieces, half.finish(state)], 2)


@pytest.mark.parametrize(
    ("fields", "dim", "millions"),
    [(ENCODEC, 128, 14.85), (DAC, 1024, 76.4), (SOUNDSTREAM, 128, 9.85), (MIMI, 512, 78.78)],
    ids=["encodec", "dac", "soundstream", "mimi"],
)  # fmt: skip
def test_a_published_body_has_its_size(fields, dim, millions):
    with torch.device("meta"):
        net = networks.build("seanet", in_channels=1, dim=dim, **fields)
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 2) == pytest.approx(millions, abs=0.02)


@pytest.mark.parametrize("name", [*CAUSAL, "encodec", *CENTRED])
@pytest.mark.parametrize("strides", [(2, 3), (5, 4), (8,)], ids=str)
@torch.no_grad()
def test_a_stream_is_the_whole_whatever_the_pieces(name, strides):
    net = small(name, strides=strides)
    hop = net.downsample
    x = 0.1 * torch.randn(2, 1, 14 * hop)  # as loud as sounds are
    z = net.encoder(x)
    y = net.decoder(z)
    # Of random weights the level is not that of sounds; between DAC's snakes and its tanh it is far above 1.
    near = 5e-5 if name == "dac" else 1e-5
    for size in (1, 7, hop, 3 * hop + 5, random.Random(0)):
        torch.testing.assert_close(in_pieces(net.encoder, x, size), z, atol=near * max(1, z.abs().max()), rtol=0)
    for size in (1, 2, 7):
        torch.testing.assert_close(in_pieces(net.decoder, z, size), y, atol=near * max(1, y.abs().max()), rtol=0)


@torch.no_grad()
def test_a_stream_of_all_strides_is_the_whole():
    net = build(strides=(2, 3, 4, 5, 8), decoder_channels=64, channels=2)
    x = torch.randn(1, 1, 3 * net.downsample)
    z = net.encoder(x)
    for size in (net.downsample, 1337):
        torch.testing.assert_close(in_pieces(net.encoder, x, size), z, atol=1e-5, rtol=0)
    torch.testing.assert_close(in_pieces(net.decoder, z, 1), net.decoder(z), atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_as_many_samples_come_out_as_go_in(causal):  # audio.md trap 23
    draw = random.Random(0)
    for strides in ((2, 3), (3, 5), (4, 5, 2), (8, 3)):
        net = build(strides=strides, causal=causal, channels=1, decoder_channels=8)
        for _ in range(50):
            frames = draw.randrange(1, 60)
            z = net.encoder(torch.zeros(1, 1, frames * net.downsample))
            assert z.shape == (1, 6, frames)
            assert net.decoder(z).shape == (1, 1, frames * net.downsample)


def test_dac_at_16_khz_is_eight_samples_short():  # audio.md trap 23
    net = build(strides=(2, 4, 5, 8), causal=False, transpose_padding="dac", channels=1, decoder_channels=16)
    with torch.no_grad():
        assert net.decoder(torch.zeros(1, 6, 100)).shape[2] == 31_992


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_the_reach_is_exact(name):
    net = small(name)
    hop, frames, frame = net.downsample, 120, 60
    reach = net.reach
    assert (reach.beyond == ("LSTM",)) is (net.config.core == "lstm")
    before, after = reach.encoder
    x = torch.randn(1, 1, frames * hop, dtype=torch.float64)
    net.double()
    z = net.encoder(x)
    inside = {frame * hop - before, frame * hop + hop - 1 + after}
    outside = {frame * hop + hop + after} | (set() if reach.beyond else {frame * hop - before - 1})
    for sample in inside | outside:
        moved = x.clone()
        moved[..., sample] += 10.0
        assert bool((net.encoder(moved) != z)[..., frame].any()) is (sample in inside), sample
    before, after = reach.decoder
    y = net.decoder(z)
    for position, seen in ((frame - before, True), (frame + after, True), (frame - before - 1, bool(reach.beyond)),
                           (frame + after + 1, False)):  # fmt: skip
        moved = z.clone()
        moved[..., position] += 10.0
        own = slice(frame * hop, frame * hop + hop)
        assert bool((net.decoder(moved) != y)[..., own].any()) is seen, position


@pytest.mark.parametrize("name", [*CAUSAL, "encodec"])
@torch.no_grad()
def test_causal_frames_depend_on_nothing_after_them(name):
    net = small(name)
    assert net.causal
    assert net.streams_exactly is (name != "encodec")
    hop = net.downsample
    x = torch.randn(1, 1, 40 * hop)
    z = net.encoder(x)
    y = net.decoder(z)
    near = 2e-6 * max(1, z.abs().max(), y.abs().max())  # another length is convolved in another order
    torch.testing.assert_close(net.encoder(x[..., : 30 * hop]), z[..., :30], atol=near, rtol=0)
    torch.testing.assert_close(net.decoder(z[..., :30]), y[..., : 30 * hop], atol=near, rtol=0)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_the_first_frame_comes_when_the_latency_says(name):
    net = small(name)
    net_first = net.downsample + net.latency
    if net.streams_exactly:
        assert net.latency == 0
    x = torch.randn(1, 1, net_first)
    z, state = net.encoder.step(x[..., :-1], net.encoder.init_state())
    assert z.shape[2] == 0
    assert net.encoder.step(x[..., -1:], state)[0].shape[2] >= 1


def test_encodec_holds_back_seven_frames():
    with torch.device("meta"):
        net = networks.build("seanet", in_channels=1, dim=128, **ENCODEC)
    assert net.latency + net.downsample == 2240


@pytest.mark.parametrize("name", CAUSAL)
@torch.no_grad()
def test_one_stream_of_a_batch_can_start_again(name):
    net = small(name)
    hop = net.downsample
    x = torch.randn(2, 1, 20 * hop)
    again = torch.tensor([False, True])
    for half, first, second in ((net.encoder, x[..., : 7 * hop], x[..., 7 * hop :]), _decoder_halves(net, x)):
        state = half.step(first, half.init_state(2))[1]
        y = half.step(second, half.reset_state(state, again))[0]
        whole = half(torch.cat([first, second], 2))
        torch.testing.assert_close(y[0], whole[0, :, -y.shape[2] :], atol=1e-5, rtol=0)
        torch.testing.assert_close(y[1], half(second)[1], atol=1e-5, rtol=0)


def _decoder_halves(net, x):
    z = net.encoder(x)
    return net.decoder, z[..., :7], z[..., 7:]


def test_a_reset_within_a_frame_is_refused():
    net = small("plain")
    with torch.no_grad():
        state = net.encoder.step(torch.randn(2, 1, net.downsample + 1), net.encoder.init_state(2))[1]
    with pytest.raises(ValueError, match="between whole frames"):
        net.encoder.reset_state(state, torch.tensor([True, False]))


@torch.no_grad()
def test_a_step_changes_neither_its_state_nor_the_network():
    net = small("lstm")
    x = torch.randn(1, 1, 5 * net.downsample)
    state = net.encoder.step(x, net.encoder.init_state())[1]
    first, second = (net.encoder.step(x, state)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_folding_changes_no_value_and_leaves_the_original(name):  # audio.md trap 31
    net = small(name)
    x = torch.randn(1, 1, 10 * net.downsample)
    folded = fold_weight_norm(net)
    torch.testing.assert_close(folded.encoder(x), net.encoder(x))
    torch.testing.assert_close(folded.decoder(net.encoder(x)), net.decoder(net.encoder(x)))
    assert not any("parametrizations" in key for key in folded.state_dict())
    plain = small(name, norm="none")
    plain.load_state_dict(fold_state(net.state_dict()))
    torch.testing.assert_close(plain.encoder(x), net.encoder(x))


def test_a_weight_is_the_product_of_its_parts():  # audio.md trap 31
    weight = torch.randn(5, 3, 7)
    length, direction = split(weight)
    assert length.shape == (5, 1, 1)
    torch.testing.assert_close(merge(length, direction), weight)
    torch.testing.assert_close(merge(length * 2, direction * 3), weight * 2)


def test_it_can_be_copied_and_copies_train_alone():  # audio.md trap 20
    net = small("encodec")
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    x = torch.randn(1, 1, 4 * net.downsample)
    assert not torch.allclose(net.encoder(x), twin.encoder(x))


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_built_without_storage_and_loaded_it_is_the_same(name):
    net = small(name)
    empty = small(name, device="meta")
    empty.load_state_dict(net.state_dict(), assign=True)
    x = torch.randn(1, 1, 4 * net.downsample)
    assert torch.equal(empty.decoder(empty.encoder(x)), net.decoder(net.encoder(x)))


@pytest.mark.parametrize("norm", ["weight", "none"])
def test_the_last_layer_is_in_the_graph(norm):
    net = small("plain", norm=norm)
    y = net.decoder(net.encoder(torch.randn(1, 1, 4 * net.downsample)))
    assert torch.autograd.grad(y.square().mean(), net.last_layer)[0].abs().sum() > 0
    assert fold_weight_norm(net).last_layer.shape == net.last_layer.shape


def test_every_parameter_is_trained():
    net = small("encodec")
    net.decoder(net.encoder(torch.randn(1, 1, 8 * net.downsample))).square().mean().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"strides": ()}, "strides"),
        ({"dilations": (0,)}, "dilations"),
        ({"channels": 0}, "channels must be at least 1"),
        ({"decoder_channels": 6}, "multiple of 4"),
        ({"transpose_padding": "dac"}, "causal=false"),
        ({"core": "attention", "attention_heads": 3}, "attention_heads=3"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        build(**fields)
