"""Chunks of long sounds against the whole: equal where that can be, said and measured where not, flat in memory."""

import subprocess
import sys

import pytest
import torch

from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.chunks import Chunked, measure

RATE = 1000
KINDS = {
    "causal": {},
    "reflect": {"pad_mode": "reflect"},
    "centred": {"causal": False},
    "centred reflect": {"causal": False, "pad_mode": "reflect", "dilations": (1, 3)},
    "dac": {"causal": False, "transpose_padding": "dac", "strides": (2, 5), "activation": "snake"},
    "attention": {"core": "attention", "attention_heads": 2, "attention_window": 3},
    "lstm": {"core": "lstm"},
    "reflect lstm": {"core": "lstm", "pad_mode": "reflect"},
    "centred lstm": {"core": "lstm", "causal": False},
    "broken": {"core": "lstm", "causal": False, "pad_mode": "reflect"},
}


def build(kind="causal", quantizer=None, **fields):
    torch.manual_seed(0)
    encoder = {"name": "seanet", "channels": 2, "strides": (2, 3)} | KINDS[kind]
    block = {"name": "audio", "dim": 8, "sample_rate": RATE, "encoder": encoder} | fields
    return build_tokenizer(block, quantizer or {"name": "rq", "codebook_size": 16, "depth": 2}).eval()


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(0.3).clamp(-1, 1)


# audio.md trap 25: as many samples as in one pass, and no seam between chunks.
@pytest.mark.parametrize("samples", [1, 59, 120, 121, 539, 1000])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "broken"])
def test_chunks_give_what_the_whole_gives(kind, samples):
    tokenizer, x = build(kind), noise(2, 1, samples)
    chunked = Chunked(tokenizer, seconds=0.06)
    assert chunked.approximate is None
    assert chunked.by == ("state" if "lstm" in kind else "overlap")
    whole, codes = tokenizer.encode(x), chunked.encode(x)
    assert torch.equal(codes.ids, whole.ids)
    assert torch.equal(codes.lengths, whole.lengths)
    assert torch.equal(codes.source_size, whole.source_size)
    y = chunked.decode(whole)
    assert y.shape == x.shape
    torch.testing.assert_close(y, tokenizer.decode(whole), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["centred", "lstm"])
@pytest.mark.parametrize("sizes", [(1, 1, 998), (7, 500, 0, 493), (1000,)])
def test_pieces_of_any_size_give_the_same(kind, sizes):
    tokenizer, x = build(kind), noise(1, 1, 1000)
    chunked = Chunked(tokenizer, seconds=0.1)
    codes = chunked.encode_pieces(iter(x.split(list(sizes), 2)))
    assert torch.equal(codes.ids, tokenizer.encode(x).ids)
    pieces = list(chunked.decode_pieces(codes))
    assert max(piece.shape[2] for piece in pieces) <= 100
    torch.testing.assert_close(torch.cat(pieces, 2), tokenizer.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["centred", "lstm"])
def test_gain_and_budget_are_those_of_the_whole(kind):
    tokenizer, x = build(kind, normalize="rms"), noise(1, 1, 500) * torch.linspace(0.1, 1, 500)
    chunked = Chunked(tokenizer, seconds=0.1)
    whole, codes = tokenizer.encode(x, budget=1), chunked.encode(x, budget=1)
    assert torch.equal(codes.ids, whole.ids)
    assert torch.equal(codes.extras["gain"], whole.extras["gain"])
    torch.testing.assert_close(chunked.decode(codes), tokenizer.decode(whole), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="Use encode"):
        chunked.encode_pieces([x])


def test_a_normalised_sound_of_high_peaks_is_no_sound_that_is_too_loud():
    # Divided by its level it lies beyond [-1, 1], which is refused of what a user gives.
    tokenizer, x = build("lstm", normalize="rms"), torch.zeros(1, 1, 500)
    x[..., ::250] = 0.9
    chunked = Chunked(tokenizer, seconds=0.1)
    assert chunked.by == "state"
    assert torch.equal(chunked.encode(x).ids, tokenizer.encode(x).ids)
    with pytest.raises(ValueError, match="peak of 9"):
        chunked.encode(10 * x)


def test_what_cannot_be_exact_is_said_and_measured():
    chunked = Chunked(build("broken"), seconds=0.3)
    assert "LSTM cannot be carried" in chunked.approximate
    got = measure(chunked, noise(1, 1, 1000))
    assert got.difference > 1e-5
    assert 0 <= got.ids_differ < 0.5
    assert measure(Chunked(build("centred"), seconds=0.3), noise(1, 1, 1000)).difference < 1e-5


def test_too_little_overlap_is_said_and_measured():
    chunked = Chunked(build("centred"), seconds=0.1, overlap=0.0)
    assert "overlap by 0 frames and the network sees" in chunked.approximate
    assert measure(chunked, noise(1, 1, 1000)).difference > 1e-5
    assert Chunked(build("centred"), seconds=0.1, overlap=1.0).approximate is None


def test_a_network_of_unknown_reach_is_approximate(monkeypatch):
    tokenizer = build("centred reflect")
    monkeypatch.setattr(type(tokenizer.networks), "reach", None)
    assert "not known" in Chunked(tokenizer, seconds=1.0).approximate


def test_what_cannot_come_in_chunks_is_refused():
    image = build_tokenizer(
        {"name": "image", "dim": 4, "encoder": {"name": "conv2d", "channels": 4, "groups": 2}}, "vq"
    )
    with pytest.raises(ValueError, match="Only sounds come in chunks"):
        Chunked(image)
    tokenizer = build()
    with pytest.raises(ValueError, match=r"shorter than a frame. Use 0\.006 s or more"):
        Chunked(tokenizer, seconds=0.001)
    with pytest.raises(ValueError, match="negative"):
        Chunked(tokenizer, overlap=-1.0)
    chunked = Chunked(tokenizer)
    with pytest.raises(ValueError, match="one by one"):
        chunked.encode(noise(2, 1, 50), torch.tensor([50, 40]))
    with pytest.raises(ValueError, match="one by one"):
        chunked.decode(tokenizer.encode(noise(2, 1, 50), torch.tensor([50, 40])))
    with pytest.raises(ValueError, match="holds no samples"):
        chunked.encode_pieces([])
    tokenizer.quantizer.pointwise = False
    with pytest.raises(ValueError, match="needs the whole sound"):
        Chunked(tokenizer)


FLAT = """
import resource, sys, torch
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.chunks import Chunked

torch.set_num_threads(1)
encoder = {"name": "seanet", "channels": 2, "strides": (4, 5, 8), "core": sys.argv[1]}
block = {"name": "audio", "dim": 8, "sample_rate": 8000, "encoder": encoder}
chunked = Chunked(build_tokenizer(block, {"name": "rq", "codebook_size": 16, "depth": 2}), seconds=5)

def run(minutes):
    codes = chunked.encode_pieces(torch.rand(1, 1, 8000) for _ in range(60 * minutes))
    assert sum(piece.shape[2] for piece in chunked.decode_pieces(codes)) == 8000 * 60 * minutes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

print(run(1), run(10))
"""


@pytest.mark.slow
@pytest.mark.parametrize("core", ["none", "lstm"])
def test_memory_does_not_grow_with_the_duration(core):
    done = subprocess.run([sys.executable, "-c", FLAT, core], capture_output=True, text=True, check=True, timeout=120)
    one, ten = map(float, done.stdout.split())
    assert ten - one < 8, "ten minutes of samples are 18 MiB, and hidden layers several times that"
