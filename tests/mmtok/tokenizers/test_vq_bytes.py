"""Texts through networks and quantizers: exact lengths, padding that changes nothing, whatever the quantizer."""

import pytest
import torch

from mmtok.codes import Codes
from mmtok.quantizers import quantizer_names
from mmtok.tokenizers import build_tokenizer, vq_bytes
from mmtok.tokenizers.vq_bytes import to_bytes

TEXTS = ["Hello, world!", "", "x", "naïve café 漢字 🙂", "a longer text, of several positions, to be padded to.\r\n\t "]
QUANTIZERS = [name for name in quantizer_names() if name != "multiscale"]  # it codes whole grids, and takes no mask


def build(quantizer="vq", strides=(2, 2), **fields):
    torch.manual_seed(0)
    encoder = {"name": "bytes1d", "channels": 8, "strides": strides}
    block = {"name": quantizer, **fields}
    return build_tokenizer({"name": "vq_bytes", "dim": 8, "encoder": encoder}, block).eval()


def row(codes, i):
    """The codes of one item alone."""
    count = int(codes.lengths[i])
    return codes.ids[i, :, :count]


@pytest.mark.parametrize("name", QUANTIZERS)
def test_encoding_gives_the_ids_of_a_pass_and_decoding_them_its_bytes(name):
    tokenizer = build(name)
    x, lengths = to_bytes(TEXTS)
    with torch.inference_mode():
        out = tokenizer(x, lengths)
    codes = tokenizer.encode(TEXTS)
    assert torch.equal(codes.ids, out.quantized.ids)
    assert codes.lengths.tolist() == [-(-size // 4) for size in lengths.tolist()]
    assert codes.source_size.flatten().tolist() == lengths.tolist()
    if tokenizer.quantizer.codebook_sizes:
        inside = torch.arange(x.shape[2]) < lengths[:, None]
        found = tokenizer.decode_bytes(codes)[:, 0]
        assert torch.equal(found[inside], out.x.argmax(1)[inside].to(torch.uint8))


@pytest.mark.parametrize("strides", [(2, 2), (3,), (2, 3, 1)], ids=str)
@pytest.mark.parametrize("name", ["none", "vq", "rq", "fsq", "lfq"])
def test_a_text_alone_is_what_it_is_in_a_padded_batch(name, strides):
    tokenizer = build(name, strides)
    x, lengths = to_bytes(TEXTS)
    # Padding that is not zero, and more of it than anybody needs.
    x = torch.cat([x, torch.full((len(x), 1, 41), 77, dtype=torch.uint8)], 2)
    x = x.where(torch.arange(x.shape[2]) < lengths[:, None, None], torch.tensor(77, dtype=torch.uint8))
    with torch.inference_mode():
        together = tokenizer(x, lengths)
        for i, size in enumerate(lengths.tolist()):
            alone = tokenizer(x[i : i + 1, :, :size], lengths[i : i + 1])
            count = -(-size // tokenizer.networks.downsample)
            torch.testing.assert_close(together.latents.z[i, :count], alone.latents.z[0, :count], atol=1e-5, rtol=0)
            torch.testing.assert_close(together.x[i, :, :size], alone.x[0, :, :size], atol=1e-4, rtol=0)


def test_an_item_of_a_batch_has_the_codes_and_the_text_it_has_alone():
    tokenizer = build("rq", codebook_size=16)
    together = tokenizer.encode(TEXTS)
    back = tokenizer.decode(together)
    for i, text in enumerate(TEXTS):
        alone = tokenizer.encode([text])
        assert torch.equal(row(together, i), row(alone, 0))
        assert tokenizer.decode(alone) == [back[i]]
    assert back[1] == ""


@pytest.mark.parametrize("strides", [(2, 2), (3, 1), (1,)], ids=str)
def test_a_long_text_in_pieces_is_what_it_is_whole(strides, monkeypatch):
    tokenizer = build("none", strides)
    x, lengths = to_bytes(["many words, " * 40, "few"])
    with torch.inference_mode():
        whole = tokenizer(x, lengths)
        bytes_ = build("vq", strides).decode_bytes(build("vq", strides).encode(x, lengths))
        monkeypatch.setattr(vq_bytes, "PIECE", 5)
        pieces = tokenizer(x, lengths)
    torch.testing.assert_close(pieces.latents.z, whole.latents.z, atol=1e-5, rtol=0)
    torch.testing.assert_close(pieces.x, whole.x, atol=1e-5, rtol=0)
    assert torch.equal(build("vq", strides).decode_bytes(build("vq", strides).encode(x, lengths)), bytes_)


def test_without_lengths_all_bytes_count():
    tokenizer = build()
    x, lengths = to_bytes(["sixteen letters!"])
    with torch.inference_mode():
        assert torch.equal(tokenizer(x).quantized.ids, tokenizer(x, lengths).quantized.ids)


def test_a_tokenizer_that_learned_a_text_gives_it_back_whatever_its_letters():
    torch.manual_seed(0)
    tokenizer = build("none").train()
    texts = ["🙂 naïve", "漢字かな", "x", "\x00\r\n"]
    x, lengths = to_bytes(texts)
    mask = (torch.arange(x.shape[2]) < lengths[:, None])[:, None]
    from mmtok.losses import losses

    loss = losses.build("bytes")
    optimizer = torch.optim.Adam(tokenizer.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss(tokenizer(x, lengths).x, x.float(), mask).backward()
        optimizer.step()
    with torch.inference_mode():
        back = tokenizer.eval()(x, lengths).x.argmax(1)
    assert [bytes(row[:size].tolist()).decode() for row, size in zip(back, lengths, strict=True)] == texts


def test_what_is_no_utf8_comes_back_as_replacement_characters():
    tokenizer = build()
    with torch.no_grad():
        tokenizer.networks.decoder.out.weight.zero_()
        tokenizer.networks.decoder.out.bias.copy_(torch.nn.functional.one_hot(torch.tensor(0xFF), 256))
    assert tokenizer.decode(tokenizer.encode(["abc", ""])) == ["\ufffd" * 3, ""]


def test_nothing_is_drawn_from_the_global_generator():
    tokenizer = build("gumbel").train()
    x, lengths = to_bytes(TEXTS)
    before = torch.get_rng_state()
    tokenizer(x, lengths, seed=torch.arange(len(x)))
    tokenizer.encode(TEXTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_gets_no_gradient():
    tokenizer = build("none").train()
    x, lengths = to_bytes(TEXTS)
    seen = []
    tokenizer.networks.encoder.embed.register_forward_hook(lambda _, __, out: out.retain_grad() or seen.append(out))
    tokenizer(x, lengths).x[2, :, 0].sum().backward()
    assert seen[0].grad[2].abs().sum() > 0
    assert seen[0].grad[2, 4:].abs().sum() == 0
    assert seen[0].grad[[0, 1, 3, 4]].abs().sum() == 0


@pytest.mark.parametrize(
    ("x", "lengths", "said"),
    [
        ("text", None, "list of strings"),
        (["\ud800"], None, "surrogate"),
        ([b"bytes"], None, "list of strings"),
        (torch.zeros(1, 4, dtype=torch.uint8), None, r"\(batch, 1, length\) of uint8"),
        (torch.zeros(1, 1, 4), None, "uint8"),
        (["a"], torch.tensor([1]), "their own lengths"),
        (torch.zeros(1, 1, 4, dtype=torch.uint8), torch.tensor([5]), "0 to 4"),
    ],
)
def test_what_is_no_text_is_refused(x, lengths, said):
    with pytest.raises(ValueError, match=said):
        build().encode(x, lengths)


def test_codes_that_promise_more_than_they_hold_are_refused():
    tokenizer = build()
    codes = tokenizer.encode(["four"])
    with pytest.raises(ValueError, match="positions of 4 bytes cannot hold"):
        tokenizer.decode(Codes(codes.ids, codes.lengths, torch.tensor([[5]])))
    with pytest.raises(ValueError, match="bare ids"):
        tokenizer.decode(codes.ids)


def test_a_batch_of_no_texts_has_no_codes():
    codes = build().encode([])
    assert len(codes) == 0


def test_the_spec_counts_bytes():
    spec = build(codebook_size=1024).spec
    assert (spec.modality, spec.downsample, spec.bits_per_position) == ("text", 4, 10)


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"strides": ()}, "strides"), ({"kernel": 4}, "kernel must be odd"), ({"blocks": 0}, "blocks must be")],
)
def test_networks_that_cannot_be_are_refused(fields, said):
    encoder = {"name": "bytes1d", **fields}
    with pytest.raises(ValueError, match=said):
        build_tokenizer({"name": "vq_bytes", "encoder": encoder}, "vq")
