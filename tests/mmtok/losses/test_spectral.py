"""Mel and STFT terms: what they compute, of what, and that no signal turns them into NaN."""

import pytest
import torch
import torchaudio

from mmtok.codes import CodeSpec
from mmtok.losses import losses
from mmtok.losses.mel import mel_filters
from mmtok.losses.spectral import MelConfig, STFTConfig, frame_mask

RATE = 24000
SOUNDSTREAM = {
    "name": "mel", "windows": [64, 128, 256, 512, 1024, 2048], "bands": 64, "linear": 1, "log": 0, "log_norm": 1,
    "rising": True, "base": "e",
}  # fmt: skip
ENCODEC = {
    "name": "mel", "windows": [32, 64, 128, 256, 512, 1024, 2048], "bands": 64, "scale": "htk", "normalized": True,
    "linear": 1, "linear_norm": 1, "log": 0,
}  # fmt: skip
DAC = {"name": "mel"}
PWG = {"name": "stft", "convergence": 1, "base": "e"}
BLOCKS = {"soundstream": SOUNDSTREAM, "encodec": ENCODEC, "dac": DAC, "stft": PWG}


def build(name):
    return losses.build(BLOCKS[name], **({} if name == "stft" else {"sample_rate": RATE}))


@pytest.fixture
def pair():
    draws = torch.Generator().manual_seed(0)
    x = 0.3 * torch.randn(2, 2, 9000, generator=draws).clamp(-3, 3)
    return x, x + 0.05 * torch.randn(2, 2, 9000, generator=draws)


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize(
    ("window", "bands", "low", "high"), [(2048, 320, 0, 12000), (64, 64, 0, 12000), (512, 40, 80, 7600)]
)
def test_the_filters_are_those_of_torchaudio(scale, window, bands, low, high):  # audio.md trap 38
    norm = "slaney" if scale == "slaney" else None
    bins = window // 2 + 1
    want = torchaudio.functional.melscale_fbanks(bins, float(low), float(high), bands, RATE, norm, scale)
    found = mel_filters(window, bands, RATE, low, high, scale)
    torch.testing.assert_close(found, want.T, rtol=1e-3, atol=1e-4 * float(want.max()))  # its own is float32


def reference(x, y, windows, bands, distance, *, scale="slaney", normalized=False):
    """The sum over scales of a distance of mel spectrograms (B, C, bands, frames), by torchaudio."""
    total = 0.0
    for window, count in zip(windows, bands, strict=True):
        mel = torchaudio.transforms.MelSpectrogram(
            RATE, window, hop_length=window // 4, n_mels=count, power=1, normalized=normalized, pad_mode="constant",
            norm="slaney" if scale == "slaney" else None, mel_scale=scale,
        )  # fmt: skip
        total = total + distance(mel(x), mel(y), window)
    return total


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_the_settings_are_the_published_terms(pair):
    x, y = pair

    def soundstream(a, b, window):
        logs = (a.clamp(min=1e-5).log() - b.clamp(min=1e-5).log()).norm(dim=2)
        return ((a - b).abs().sum(2) + (window / 2) ** 0.5 * logs).mean() / 64

    def encodec(a, b, window):
        return ((a - b).abs().sum(2) + (a - b).norm(dim=2)).mean() / 64

    def dac(a, b, window):
        return (a.clamp(min=1e-5).log10() - b.clamp(min=1e-5).log10()).abs().mean()

    def check(name, distance, windows, bands, **kind):
        torch.testing.assert_close(
            build(name)(y, x), reference(y, x, windows, bands, distance, **kind), rtol=1e-3, atol=0
        )

    check("soundstream", soundstream, [2**n for n in range(6, 12)], [64] * 6)
    check("encodec", encodec, [2**n for n in range(5, 12)], [64] * 7, scale="htk", normalized=True)
    check("dac", dac, [2**n for n in range(5, 12)], [5, 10, 20, 40, 80, 160, 320])


def test_the_stft_term_adds_magnitudes_logarithms_and_convergence(pair):
    x, y = pair
    total = 0.0
    for window in (512, 1024, 2048):
        a, b = (
            torch.stft(
                signal.flatten(0, 1), window, window // 4, window=torch.hann_window(window), pad_mode="constant",
                return_complex=True,
            ).abs().unflatten(0, (2, 2))
            for signal in (y, x)
        )  # fmt: skip
        ratio = torch.stack([(p - q).norm() / q.norm() for p, q in zip(a, b, strict=True)]).mean()
        total = total + (a - b).abs().mean() + (a.log() - b.log()).abs().mean() + ratio
    torch.testing.assert_close(build("stft")(y, x), total, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_padded_batch_costs_what_its_items_cost(name, pair):
    term, (x, y) = build(name), pair
    lengths = (5001, 8999)
    mask = (torch.arange(9000) < torch.tensor(lengths)[:, None])[:, None]
    dirty = [signal.where(mask, torch.nan) for signal in (y, x)]
    alone = [term(y[i : i + 1, :, :n], x[i : i + 1, :, :n]) for i, n in enumerate(lengths)]
    for i, want in enumerate(alone):
        one = slice(i, i + 1)
        torch.testing.assert_close(term(dirty[0][one], dirty[1][one], mask[one]), want, rtol=1e-5, atol=1e-6)
    assert min(alone) < term(*dirty, mask) < max(alone)


def test_frames_are_valid_that_an_item_would_have_alone():
    for length in (0, 1, 7, 8, 9, 24):
        mask = (torch.arange(30) < length)[None, None]
        count = 1 + length // 8 if length else 0
        assert frame_mask(mask, 8)[0, 0].tolist() == [True] * count + [False] * (4 - count)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("samples", [1, 5, 33, 700])
def test_signals_shorter_than_a_window_cost_something(name, samples):  # audio.md trap 27: reflection fails on them
    x = torch.full((1, 1, samples), 0.5)
    assert torch.isfinite(build(name)(-0.1 * x, x))
    assert build(name)(0.1 * x, x) > 0
    assert build(name)(x, x) == 0


@pytest.mark.parametrize("name", BLOCKS)
def test_no_signals_cost_nothing(name):
    nothing = torch.zeros(0, 1, 3000, requires_grad=True)
    build(name)(nothing, nothing.detach(), torch.ones(0, 1, 3000, dtype=torch.bool)).backward()
    assert build(name)(nothing, nothing.detach()) == 0


EXTREMES = {
    "silence": lambda x: torch.zeros_like(x),
    "subnormal": lambda x: 1e-40 * x,
    "quiet": lambda x: 1e-12 * x,
    "loud": lambda x: 1e6 * x,
    "clipped": lambda x: x.sign(),
    "constant": lambda x: torch.full_like(x, 1.0),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("left", EXTREMES)
@pytest.mark.parametrize("right", ["silence", "clipped"])
def test_silence_and_loudness_give_finite_terms_and_gradients(name, left, right, pair):
    term, noise = build(name), pair[0][:1, :1, :3000]
    own, x = EXTREMES[left](noise).requires_grad_(), EXTREMES[right](noise)
    value = term(own, x)
    (gradient,) = torch.autograd.grad(value, own)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_float32_under_autocast(name, pair):  # audio.md trap 22
    x, y = pair
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = build(name)(y, x)
    assert torch.equal(found, build(name)(y, x))


def test_each_signal_is_transformed_once_a_scale(pair, monkeypatch):  # audio.md 6: audiocraft does it twice
    calls, stft = [], torch.stft
    monkeypatch.setattr(torch, "stft", lambda *a, **k: calls.append(1) or stft(*a, **k))
    build("soundstream")(*pair)
    assert len(calls) == 2 * 6


def test_windows_and_filters_follow_the_device_and_stay_out_of_checkpoints():
    term = build("dac")
    assert not term.state_dict()
    assert not list(term.parameters())
    assert all(buffer.device.type == "meta" for buffer in term.to("meta").buffers())


def test_the_sample_rate_comes_from_the_tokenizer():
    spec = CodeSpec("audio", (1024,), 320, sample_rate=16000)
    assert MelConfig().filled(spec, 64).sample_rate == 16000
    with pytest.raises(ValueError, match=r"sample_rate=8000 does not fit the tokenizer's 16000"):
        MelConfig(sample_rate=8000).filled(spec, 64)
    with pytest.raises(ValueError, match=r"of audio, and the tokenizer is of modality 'image'"):
        MelConfig().filled(CodeSpec("image", (1024,)), 64)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"windows": [30]}, r"windows=\[30\] must each be a multiple of overlap=4"),
        ({"windows": [4]}, r"windows=\[4\]"),
        ({"bands": [5, 10]}, r"bands=\[5, 10\] are not one for each of the 7 windows"),
        ({"bands": 0}, r"bands=0 must be at least 1"),
        ({"log": 0}, r"every part has weight 0"),
        ({"floor": 0}, r"floor=0.0 must be at least 1e-8"),
        ({"sample_rate": 8000, "high": 5000.0}, r"0 to 5000 Hz do not fit a sample rate of 8000"),
        ({}, r"needs a sample rate"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        losses.build("mel", **fields)


def test_pictures_are_refused():
    with pytest.raises(ValueError, match=r"compare waveforms .* got \(1, 3, 8, 8\)"):
        losses.build(STFTConfig())(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
