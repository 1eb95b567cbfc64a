"""Sounds to codes and back: as many samples as went in, and a batch gives what each item gives alone."""

import random

import pytest
import torch

from mmtok.codes import Codes
from mmtok.tokenizers import build_tokenizer

SMALL = {"name": "seanet", "channels": 2, "strides": (2, 3)}
KINDS = {
    "causal": {},
    "lstm": {"core": "lstm"},
    "attention": {"core": "attention", "attention_heads": 2, "attention_window": 3},
    "reflect": {"pad_mode": "reflect"},
    "centred": {"causal": False},
    "centred attention": {"core": "attention", "attention_heads": 2, "attention_window": 3, "causal": False},
    "centred reflect": {"causal": False, "pad_mode": "reflect"},
    "dac": {"causal": False, "transpose_padding": "dac", "activation": "snake", "tanh": True},
}


def build(kind="causal", quantizer=None, strides=(2, 3), **fields):
    torch.manual_seed(0)
    block = {"name": "audio", "dim": 8, "sample_rate": 8000, "encoder": SMALL | {"strides": strides} | KINDS[kind]}
    tokenizer = build_tokenizer(block | fields, quantizer or {"name": "rq", "codebook_size": 16, "depth": 2})
    return tokenizer.eval()


def noise(*shape, scale=0.3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(scale).clamp(-1, 1)


# audio.md trap 23: odd strides lose a sample each in DAC.
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strides", [(2,), (3,), (5, 3), (2, 3, 4), (2, 4, 5, 8), (8, 3)])
def test_as_many_samples_come_out_as_went_in(kind, strides):
    tokenizer = build(kind, strides=strides)
    draw = random.Random(str(strides))
    hop = tokenizer.networks.downsample
    for samples in [1, 2, hop - 1, hop, hop + 1, *(draw.randrange(1, 3 * hop + 200) for _ in range(30))]:
        x = noise(1, 1, max(samples, 1))
        codes = tokenizer.encode(x)
        assert codes.ids.shape[2] == codes.lengths.item() == -(-x.shape[2] // hop)
        assert codes.source_size.tolist() == [[x.shape[2]]]
        assert tokenizer.decode(codes).shape == x.shape == tokenizer(x).x.shape


def test_what_dac_loses_at_odd_strides_is_silence():
    tokenizer = build("dac", strides=(2, 5))
    x = noise(1, 1, 40)
    y = tokenizer.decode(tokenizer.encode(x))
    assert y[..., -1] == 0
    assert y[..., :-2].abs().min() > 0


# audio.md trap 28: what pads a batch must not reach the items.
@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_batch_gives_what_each_item_gives_alone(kind):
    # downstream.md 3.2, transformers#43377: Mimi gave other codes in a batch than alone.
    tokenizer = build(kind)
    lengths = torch.tensor([61, 7, 60, 1, 33, 60])
    x = noise(6, 1, 61)
    codes = tokenizer.encode(x, lengths)
    back = tokenizer.decode(codes)
    trained = tokenizer(x, lengths)
    assert codes.ids.shape[2] == 11
    for index, length in enumerate(lengths.tolist()):
        alone = tokenizer.encode(x[index : index + 1, :, :length])
        frames = alone.lengths.item()
        assert codes.lengths[index] == frames
        assert torch.equal(codes.ids[index, :, :frames], alone.ids[0])
        assert (codes.ids[index, :, frames:] == -1).all()
        want = tokenizer.decode(alone)[0]
        torch.testing.assert_close(back[index, :, :length], want, atol=1e-5, rtol=0)
        torch.testing.assert_close(trained.x[index, :, :length], want, atol=1e-5, rtol=0)
        assert not back[index, :, length:].any()


@pytest.mark.parametrize("kind", ["causal", "centred"])
def test_padding_may_hold_anything_and_an_item_nothing(kind):
    tokenizer, x = build(kind), noise(3, 1, 30)
    dirty = x.clone()
    dirty[0, :, 20:] = 0.9
    lengths = torch.tensor([20, 30, 0])
    assert torch.equal(tokenizer.encode(dirty, lengths).ids, tokenizer.encode(x, lengths).ids)
    codes = tokenizer.encode(x, lengths)
    assert codes.lengths.tolist() == [4, 5, 0]
    assert not tokenizer.decode(codes)[2].any()


@pytest.mark.parametrize(("training", "passes"), [(True, 1), (False, 3)])
def test_short_crops_cost_one_pass_in_training_and_exactness_in_use(training, passes):
    tokenizer, seen = build("centred").train(training), []
    for half in (tokenizer.networks.encoder, tokenizer.networks.decoder):
        half.register_forward_hook(lambda *call: seen.append(call[0]))
    out = tokenizer(noise(4, 1, 36), torch.tensor([36, 12, 30, 36]))
    assert len(seen) == 2 * passes
    assert out.latents.mask.sum(1).tolist() == [6, 2, 5, 6]
    assert not out.quantized.values[1, 2:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_all_parameters_of_a_padded_batch(kind):
    tokenizer = build(kind).train()
    out = tokenizer(noise(3, 1, 36), torch.tensor([36, 12, 30]))
    (out.x.square().mean() + sum(out.quantized.losses.values())).backward()
    missing = [name for name, p in tokenizer.networks.named_parameters() if p.grad is None]
    assert not missing


def test_ids_of_minus_one_decode_as_dropped_levels_and_silent_frames():
    tokenizer = build()
    codes = tokenizer.encode(noise(1, 1, 60))
    one = tokenizer.encode(noise(1, 1, 60), budget=1)
    assert (one.ids[:, 1] == -1).all()
    dropped = codes.ids.clone()
    dropped[:, 1] = -1
    same = tokenizer.decode(Codes(dropped, codes.lengths, codes.source_size))
    torch.testing.assert_close(same, tokenizer.decode(one))


# audio.md trap 27: the gain travels with the codes; trap 34: silence has none that is infinite.
def test_a_normalised_sound_keeps_its_level_through_its_codes():
    tokenizer = build(normalize="rms")
    x = noise(1, 1, 600)
    loud, quiet = tokenizer.encode(x), tokenizer.encode(x / 10)
    assert torch.equal(loud.ids, quiet.ids)
    assert loud.extras["gain"].tolist() == pytest.approx([x.square().mean().sqrt().item() / 0.1])
    torch.testing.assert_close(tokenizer.decode(quiet) * 10, tokenizer.decode(loud), rtol=1e-4, atol=1e-6)
    plain = Codes(loud.ids, loud.lengths, loud.source_size)
    torch.testing.assert_close(tokenizer.decode(plain) * loud.extras["gain"], tokenizer.decode(loud))
    trained = tokenizer(x / 10)
    torch.testing.assert_close(trained.x, tokenizer.decode(quiet))


def test_the_gain_of_an_item_does_not_see_its_padding():
    tokenizer = build(normalize="rms")
    x = noise(2, 1, 60)
    batch = tokenizer.encode(x, torch.tensor([60, 30]))
    torch.testing.assert_close(batch.extras["gain"][1:], tokenizer.encode(x[1:, :, :30]).extras["gain"])


@pytest.mark.parametrize("normalize", ["none", "rms"])
def test_silence_and_full_scale_give_numbers(normalize):
    tokenizer = build(normalize=normalize)
    for x in (torch.zeros(1, 1, 100), torch.ones(1, 1, 100), torch.full((1, 1, 100), 1e-30)):
        assert tokenizer.decode(tokenizer.encode(x)).isfinite().all()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(1, 2, 10), r"Sounds are \(B, 1, S\)"),
        (torch.zeros(1, 10, 1), "transpose"),
        (torch.zeros(1, 1, 0), "at least 1"),
        (torch.zeros(1, 1, 10, dtype=torch.int16), "x / 32768"),
        (torch.full((1, 1, 10), 3000.0), "divide by 32768"),
        (torch.full((1, 1, 10), torch.nan), "not finite"),
        (torch.zeros(1, 1, 10, dtype=torch.float64), "x.float"),
    ],
)
def test_what_is_no_x_is_refused_by_name(x, said):
    with pytest.raises(ValueError, match=said):
        build().encode(x)


def test_lengths_and_sizes_that_cannot_be_are_refused():
    tokenizer = build()
    with pytest.raises(ValueError, match="0 to 10 here"):
        tokenizer.encode(torch.zeros(2, 1, 10), torch.tensor([10, 11]))
    with pytest.raises(ValueError, match="cannot hold"):
        tokenizer.decode(Codes(torch.zeros(1, 2, 3, dtype=torch.int64), torch.tensor([3]), torch.tensor([[19]])))
    with pytest.raises(ValueError, match="these are bare ids"):
        tokenizer.decode(torch.zeros(1, 2, 3, dtype=torch.int64))


def test_it_says_what_it_is():
    said = build(strides=(2, 3)).describe()
    assert said["sample rate"] == "8,000 Hz"
    assert said["frames/s"] == "1333 (4000/3)"
    assert said["levels"] == "2 of 16"
    assert said["bits/s"] == "10,667"
    assert said["latency"].startswith("6 samples (0.75 ms)")
    assert "waits for" in build("reflect").describe()["latency"]
    assert "LSTM sees everything before" in build("lstm").describe()["receptive field"]


def test_bypass_keeps_masks_and_gains():
    tokenizer = build("centred", {"name": "none"}, normalize="rms")
    x, lengths = noise(2, 1, 36), torch.tensor([36, 12])
    out = tokenizer(x, lengths)
    torch.testing.assert_close(tokenizer.bypass(out.latents, (36,)), out.x)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimized_copy_gives_the_same_and_leaves_its_original(kind):
    tokenizer, x = build(kind), noise(1, 1, 200)
    state = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    ready = tokenizer.optimize()
    codes = tokenizer.encode(x)
    assert torch.equal(ready.encode(x).ids, codes.ids)
    torch.testing.assert_close(ready.decode(codes), tokenizer.decode(codes), atol=1e-5, rtol=0)
    assert ready.fingerprint() == tokenizer.fingerprint()
    assert not any(p.requires_grad for p in ready.parameters())
    assert not any("parametrizations" in name for name in ready.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in tokenizer.state_dict().items())
    if tokenizer.networks.causal:
        stream = ready.streaming()
        ids = [stream.encode(piece).ids for piece in x.split(33, 2)] + [stream.finish_encode().ids]
        assert torch.equal(torch.cat(ids, 2), codes.ids)
