"""Streams against the whole: the same codes and samples, however the sound is cut."""

import pytest
import torch

from mmtok.codes import Codes
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.streaming import Stream

KINDS = {
    "plain": {},
    "lstm": {"core": "lstm"},
    "attention": {"core": "attention", "attention_heads": 2, "attention_window": 3},
    "deep": {"strides": (2, 3, 4), "dilations": (1, 3), "shortcut": "conv", "activation": "snake"},
    "reflect": {"pad_mode": "reflect", "core": "lstm"},
}
CUTS = [(1,) * 20, (6,) * 9, (5, 13, 0, 41), (59,), (200,), (3, 100)]


def build(kind="plain", **fields):
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 2, "strides": (2, 3)} | KINDS[kind]
    block = {"name": "audio", "dim": 8, "sample_rate": 8000, "encoder": encoder}
    return build_tokenizer(block | fields, {"name": "rq", "codebook_size": 16, "depth": 2}).eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(0.3).clamp(-1, 1)


def pieces_of(x, sizes):
    return x.split([*sizes, x.shape[-1] - sum(sizes)], -1)


def stream_codes(stream, pieces):
    return [*(stream.encode(piece) for piece in pieces), stream.finish_encode()]


def stream_sound(stream, codes):
    return torch.cat([*(stream.decode(some) for some in codes), stream.finish_decode()], 2)


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_gives_what_the_whole_gives(kind, sizes):
    tokenizer, x = build(kind), noise(2, 1, 203)
    whole = tokenizer.encode(x)
    stream = tokenizer.streaming(batch=2)
    codes = stream_codes(stream, pieces_of(x, sizes))
    assert torch.equal(torch.cat([some.ids for some in codes], 2), whole.ids)
    assert sum(some.source_size for some in codes).tolist() == [[203], [203]]
    y = stream_sound(stream, codes)
    torch.testing.assert_close(y, tokenizer.decode(whole), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["plain", "lstm", "deep"])
def test_a_causal_stream_gives_each_frame_and_its_sound_at_once(kind):
    tokenizer = build(kind)
    stream = tokenizer.streaming()
    hop = tokenizer.networks.downsample
    assert stream.latency == hop
    for samples in (hop, 2 * hop, hop - 1, 1):
        before = stream.state.pending.shape[2]
        codes = stream.encode(noise(1, 1, samples))
        assert codes.ids.shape[2] == (samples + before) // hop
        assert stream.decode(codes).shape[2] == codes.ids.shape[2] * hop


def test_reflected_padding_holds_back_the_first_frames_and_says_how_many():
    tokenizer = build("reflect")
    stream, x = tokenizer.streaming(), noise(1, 1, 400)
    assert stream.latency >= tokenizer.networks.downsample + tokenizer.networks.latency > 6
    heard = 0
    for index in range(400):
        heard += stream.decode(stream.encode(x[..., index : index + 1])).shape[2]
        assert (heard > 0) == (index + 1 >= stream.latency)


def test_one_stream_begins_anew_while_the_others_go_on():
    tokenizer, x = build("lstm"), noise(2, 1, 60)
    stream = tokenizer.streaming(batch=2)
    first = stream.encode(x[..., :24])
    heard = stream.decode(first)
    stream.reset(torch.tensor([False, True]))
    second = stream.encode(x[..., 24:])
    on, anew = tokenizer.encode(x[:1]), tokenizer.encode(x[1:, :, 24:])
    assert torch.equal(torch.cat([first.ids, second.ids], 2)[:1], on.ids)
    assert torch.equal(second.ids[1:], anew.ids)
    rest = stream.decode(second)
    torch.testing.assert_close(torch.cat([heard, rest], 2)[:1], tokenizer.decode(on), atol=1e-5, rtol=0)
    torch.testing.assert_close(rest[1:], tokenizer.decode(anew), atol=1e-5, rtol=0)


def test_single_streams_begin_anew_only_between_frames():
    stream = build().streaming(batch=2)
    stream.encode(noise(2, 1, 8))
    with pytest.raises(ValueError, match="2 samples wait for their frame"):
        stream.reset(torch.tensor([True, False]))


def test_a_state_can_be_kept_and_put_back():
    tokenizer, x = build("lstm"), noise(1, 1, 120)
    stream = tokenizer.streaming()
    stream.encode(x[..., :50])
    kept = stream.state
    codes = stream.encode(x[..., 50:])
    stream.state = kept
    assert torch.equal(stream.encode(x[..., 50:]).ids, codes.ids)


def test_a_finished_stream_begins_the_next_sound():
    tokenizer, x = build(), noise(1, 1, 40)
    stream = tokenizer.streaming()
    first = stream_codes(stream, [x])
    again = stream_codes(stream, [x])
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(first, again, strict=True))
    torch.testing.assert_close(stream_sound(stream, first), stream_sound(stream, again), atol=0, rtol=0)


def test_a_stream_of_nothing_gives_nothing():
    stream = build("reflect").streaming()
    codes = stream_codes(stream, [noise(1, 1, 0)])
    assert stream_sound(stream, codes).shape == (1, 1, 0)


def test_the_budget_holds_in_streams():
    tokenizer, x = build(), noise(1, 1, 60)
    assert torch.equal(tokenizer.streaming(budget=1).encode(x).ids, tokenizer.encode(x, budget=1).ids)


def test_two_streams_of_one_tokenizer_do_not_touch():
    tokenizer, x = build("lstm"), noise(1, 1, 60)
    one, other = tokenizer.streaming(), tokenizer.streaming()
    one.encode(x[..., :30])
    other.encode(noise(1, 1, 60))
    assert torch.equal(one.encode(x[..., 30:]).ids, tokenizer.encode(x).ids[..., 5:])


def test_what_needs_the_future_is_refused_with_the_remedy():
    encoder = {"name": "seanet", "channels": 2, "strides": (2,), "causal": False}
    with pytest.raises(ValueError, match=r"encoder\.causal=true"):
        build(encoder=encoder).streaming()
    with pytest.raises(ValueError, match="normalize=none"):
        build(normalize="rms").streaming()


def test_batches_and_sounds_that_do_not_fit_are_refused():
    tokenizer = build()
    stream = tokenizer.streaming(batch=2)
    with pytest.raises(ValueError, match="This stream has 2 items"):
        stream.encode(noise(1, 1, 10))
    with pytest.raises(ValueError, match="not finite"):
        stream.encode(torch.full((2, 1, 10), torch.nan))
    with pytest.raises(ValueError, match="This stream has 2 items"):
        stream.decode(Codes(torch.zeros(1, 2, 1, dtype=torch.int64), torch.ones(1).long(), torch.tensor([[6]])))


@pytest.mark.parametrize(("pad", "core", "steps"), [("zeros", "none", True), ("reflect", "lstm", False)])
def test_centred_networks_may_have_steps_without_being_streams(pad, core, steps):
    encoder = {"name": "seanet", "channels": 2, "strides": (2,), "causal": False, "pad_mode": pad, "core": core}
    assert Stream.possible(build(encoder=encoder)) is steps
