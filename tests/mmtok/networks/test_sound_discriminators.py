"""Discriminators of sounds: as large as published, each item for itself, silence and short items."""

import copy

import pytest
import torch
from torch import nn

from mmtok.networks.discriminators import discriminators
from mmtok.networks.discriminators.sound import ComplexSpectrum, equalised
from mmtok.schema import ConfigError, to_plain
from mmtok.training.adversary import Adversary, check_discriminator
from mmtok.training.settings import AdversaryConfig

TINY = {
    "msstft": {"name": "msstft", "windows": [256, 128], "channels": 4},
    "mpd": {"name": "mpd", "channels": 2, "periods": [2, 5]},
    "multiband": {"name": "multiband", "windows": [256, 128], "channels": 4},
    "msd": {"name": "msd", "channels": 4},
    "stft": {"name": "stft", "window": 128, "channels": 2},
    "ensemble": {
        "name": "ensemble",
        "inner": [{"name": "mpd", "channels": 2}, {"name": "stft", "window": 128, "channels": 2}],
    },
}
PARTS = {"msstft": 2, "mpd": 2, "multiband": 2, "msd": 3, "stft": 1, "ensemble": 6}
LAYERS = {"msstft": 5, "mpd": 5, "multiband": 25, "msd": 6, "stft": 7}
"""Activations of a part."""


def build(name, channels=1):
    torch.manual_seed(0)
    return discriminators.build(discriminators.parse(TINY[name]).filled(channels))


def sounds(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


# As each class's docstring counts them.
PUBLISHED = {"msstft": 472_490, "mpd": 41_105_770, "multiband": 1_413_990, "msd": 16_924_086, "stft": 5_551_170}


@pytest.mark.parametrize(("name", "size"), PUBLISHED.items())
def test_it_is_as_large_as_published(name, size):
    with torch.device("meta"):
        network = discriminators.build(name, in_channels=1)
    assert sum(parameter.numel() for parameter in network.parameters()) == size


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(("channels", "samples"), [(1, 1600), (2, 1601), (1, 1597)])
def test_every_item_is_judged_for_itself(name, channels, samples):  # image.md trap 19
    network, x = build(name, channels).train(), sounds(3, channels, samples)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    together = network(x)
    assert len(together.logits) == len(together.features) == PARTS[name]
    assert all(len(part) == LAYERS[name] for part in together.features if name in LAYERS)
    assert all(logits.shape[:2] == (3, 1) for logits in together.logits)
    for i, item in enumerate(x):
        alone = network(item[None])
        for a, b in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(a, b[i : i + 1], rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", TINY)
def test_both_halves_go_in_one_pass(name):
    network, real, fake = build(name), sounds(2, 1, 1600), -0.5 * sounds(2, 1, 1600).flip(-1)
    for half, alone in zip(network(torch.cat([real, fake])).halves(), (network(real), network(fake)), strict=True):
        torch.testing.assert_close(half.logits, alone.logits, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(half.features, alone.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_every_weight_is_normed_by_a_parametrization_and_learns(name):  # audio.md trap 20: those can be copied
    network = copy.deepcopy(build(name))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv1d | nn.Conv2d)]
    assert all(nn.utils.parametrize.is_parametrized(module, "weight") for module in convolutions)
    torch.stack([logits.square().mean() for logits in network(sounds(2, 1, 1600)).logits]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("relative", ["plain", "relative"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_silence_gives_no_nan_on_either_side(name, relative, dtype):  # audio.md trap 34
    config = AdversaryConfig(
        discriminator=discriminators.parse(TINY[name]), objective="least_squares", weight=1.0, feature_weight=2.0,
        feature_norm=relative,
    )  # fmt: skip
    torch.manual_seed(0)
    adversary, silence = Adversary(config, in_channels=1), torch.zeros(2, 1, 1600)
    for x, level in ((silence, 0.0), (silence, 1e-30), (silence, 0.5), (sounds(2, 1, 1600), 0.0)):
        fake = (level * sounds(2, 1, 1600).flip(0)).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            judged = adversary.judge(x, fake, 0, fake.sum(), fake)
        adversary.zero_grad()
        (judged.generator + judged.discriminator).backward()
        assert torch.isfinite(judged.generator)
        assert torch.isfinite(judged.discriminator)
        assert torch.isfinite(fake.grad).all()
        assert all(parameter.grad.isfinite().all() for parameter in adversary.parameters())


def test_a_quiet_item_is_not_blown_up():
    out = equalised(torch.stack([sounds(1, 100), 1e-8 * sounds(1, 100), torch.full((1, 100), 0.7)]))
    assert out.abs().amax((1, 2)).tolist() == pytest.approx([0.8, 8e-5, 0.0], rel=0.1, abs=1e-6)
    assert out.mean(-1).abs().max() < 1e-6


def test_the_level_is_no_evidence_where_items_are_normalised():
    network, x = build("multiband"), sounds(2, 1, 1600)
    torch.testing.assert_close(network(x).logits, network(0.01 * x + 0.3).logits, rtol=1e-3, atol=1e-4)
    plain = build("mpd")
    assert not torch.allclose(plain(x).logits[0], plain(0.01 * x + 0.3).logits[0], atol=1e-3)


def test_spectra_are_those_of_the_library_and_float32_under_autocast():  # audio.md trap 22
    x = sounds(2, 2, 1000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ComplexSpectrum(64, normalized=True)(x)
    assert found.dtype == torch.float32
    bins = torch.stft(
        x.flatten(0, 1), 64, 16, window=torch.hann_window(64), center=False, return_complex=True
    ) / torch.hann_window(64).square().sum().sqrt()  # fmt: skip
    want = bins.unflatten(0, (2, 2)).mT
    torch.testing.assert_close(found, torch.cat([want.real, want.imag], 1))
    assert ComplexSpectrum(64, pad=True)(x).shape == (2, 4, -(-1000 // 16), 33)


@pytest.mark.parametrize(
    ("name", "least"), [("msstft", 256), ("mpd", 5), ("multiband", 256), ("msd", 4), ("stft", 352), ("ensemble", 352)]
)
def test_items_too_short_are_refused_before_anything_is_trained(name, least):
    config = AdversaryConfig(discriminator=discriminators.parse(TINY[name]))
    check_discriminator(config, 1, (least,))
    build(name)(sounds(1, 1, least))
    with pytest.raises(ConfigError, match=rf"cannot judge training items of {least - 1}: it needs {least} samples"):
        check_discriminator(config, 1, (least - 1,))


def test_pictures_are_refused():
    with pytest.raises(ConfigError, match=r"cannot judge training items of 32 x 32: it judges sounds"):
        check_discriminator(AdversaryConfig(discriminator=discriminators.parse("mpd")), 3, (32, 32))


def test_an_ensemble_is_its_parts_in_order():
    network = build("ensemble", 2)
    x = sounds(2, 2, 1600)
    period, spectrum = (inner(x) for inner in network.inner)
    torch.testing.assert_close(network(x).logits, period.logits + spectrum.logits)
    assert [config.in_channels for config in network.config.inner] == [2, 2]
    assert discriminators.parse(to_plain(network.config)) == network.config


def test_an_ensemble_says_what_is_wrong_inside():
    with pytest.raises(ConfigError, match=r"inner is empty. Example"):
        discriminators.build("ensemble", inner=[])
    with pytest.raises(ConfigError, match=r"inner\[1\].*no discriminator 'mdp'. Did you mean msd"):
        discriminators.build("ensemble", inner=["msd", {"name": "mdp"}])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"name": "mpd", "periods": []}, "periods and channels must be at least 1"),
        ({"name": "msd", "channels": 6}, "channels a multiple of 4, got 3 and 6"),
        ({"name": "msstft", "windows": [30]}, r"windows=\[30\] must each be a multiple of 4"),
        ({"name": "stft", "window": 64}, "window=64 must be a multiple of 4, and 128 at least"),
        ({"name": "multiband", "edges": [0, 0.5, 0.4]}, r"edges=\[0.0, 0.5, 0.4\] must rise"),
        ({"name": "multiband", "windows": [16]}, "with 5 bins of the window of 16 in each band"),
    ],
)
def test_settings_that_cannot_be_are_refused(block, message):
    with pytest.raises(ConfigError, match=message):
        discriminators.parse(block)


def test_a_tiny_codec_trains_against_periods():
    torch.manual_seed(0)
    config = AdversaryConfig(
        discriminator=discriminators.parse(TINY["mpd"]), objective="least_squares", weight=1.0, feature_weight=2.0
    )
    adversary, codec = Adversary(config, in_channels=1), nn.Conv1d(1, 1, 33, padding=16)
    mine, theirs = (torch.optim.Adam(side.parameters(), 2e-3) for side in (codec, adversary))
    before = [copy.deepcopy(side.state_dict()) for side in (codec, adversary)]
    time = torch.arange(2000) / 2000
    distances = []
    for step in range(80):
        x = 0.5 * torch.sin(6.28 * time * torch.randint(20, 200, (4, 1, 1)))
        fake = codec(x)
        judged = adversary.judge(x, fake, step, fake.sum(), codec.weight)
        assert torch.isfinite(judged.generator + judged.discriminator)
        (judged.generator + judged.discriminator).backward()
        for side in (mine, theirs):
            side.step()
            side.zero_grad()
        distances.append((fake - x).abs().mean().item())
    for side, state in zip((codec, adversary), before, strict=True):
        assert all(not torch.equal(value, state[name]) for name, value in side.state_dict().items())
    assert sum(distances[-10:]) < 0.6 * sum(distances[:10])  # no other term pulled it there
