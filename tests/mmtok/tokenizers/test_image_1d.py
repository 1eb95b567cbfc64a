"""Pictures to a row of codes and back."""

import pytest
import torch

from mmtok.codes import Codes
from mmtok.tokenizers import build_tokenizer

ENCODER = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 6}


def build(quantizer=None, **fields):
    torch.manual_seed(0)
    block = {"name": "image_1d", "dim": 8, "image_size": 16, "encoder": ENCODER} | fields
    return build_tokenizer(block, quantizer or {"name": "fsq"}).eval()


def pictures(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (5, 18), (1, 1)])
@pytest.mark.parametrize("quantizer", [{"name": "fsq"}, {"name": "rq", "depth": 2, "codebook_size": 16}])
def test_codes_decode_to_the_forward_reconstruction(size, quantizer):
    tokenizer, x = build(quantizer), pictures(2, 3, *size)
    codes = tokenizer.encode(x)
    assert codes.ids.shape[2] == 6
    assert codes.grid is None
    assert tokenizer.spec.positions == 6
    out = tokenizer(x)
    assert torch.equal(codes.ids, out.quantized.ids)
    torch.testing.assert_close(tokenizer.decode(codes), out.x)


def test_a_shorter_code_is_the_beginning_of_the_longer_and_decodes_as_in_training():
    tokenizer, x = build(), pictures(2, 3, 16, 16)
    whole, kept = tokenizer(x), torch.tensor([2, 6])
    short = tokenizer(x, positions=kept)
    assert torch.equal(short.quantized.ids[0, :, :2], whole.quantized.ids[0, :, :2])
    assert (short.quantized.ids[0, :, 2:] == -1).all()
    torch.testing.assert_close(short.x[1], whole.x[1])
    assert not torch.allclose(short.x[0], whole.x[0])
    # Cut to what is there, as true lengths are packed.
    codes = Codes(short.quantized.ids[:1, :, :2], torch.tensor([2]), torch.tensor([[16, 16]]))
    torch.testing.assert_close(tokenizer.decode(codes), short.x[:1])


def test_pictures_of_several_sizes_decode_in_one_batch_as_alone():
    tokenizer = build()
    alone = [tokenizer.encode(pictures(1, 3, *size, seed=i)) for i, size in enumerate([(16, 12), (8, 20), (16, 12)])]
    joined = Codes(*(torch.cat([getattr(one, name) for one in alone]) for name in ("ids", "lengths", "source_size")))
    decoded = tokenizer.decode(joined)
    for x, codes in zip(decoded, alone, strict=True):
        height, width = codes.source_size[0].tolist()
        torch.testing.assert_close(x[:, :height, :width], tokenizer.decode(codes)[0])


@pytest.mark.parametrize("nested", ["uniform", "pow2", "uniform_pow2"])
def test_training_keeps_first_codes_by_its_draw(nested):
    tokenizer = build(nested=nested, full=0.25, encoder=ENCODER | {"queries": 16})
    drawn = tokenizer.draw_positions(4000, torch.Generator().manual_seed(0))
    assert drawn.min() == 1
    assert drawn.max() == 16
    expected = {"uniform": 1 / 16, "pow2": 1 / 5, "uniform_pow2": 1 / 16 / 5}[nested]
    assert (drawn == 16).double().mean().item() == pytest.approx(0.25 + 0.75 * expected, abs=0.03)
    if nested == "pow2":
        assert set(drawn.tolist()) == {1, 2, 4, 8, 16}
    assert build().draw_positions(4, torch.Generator()) is None


@pytest.mark.parametrize("nested", ["pow2", "uniform_pow2"])
def test_lengths_beyond_the_last_power_of_two_are_drawn_too(nested):
    drawn = build(nested=nested, full=0.0).draw_positions(2000, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == ({1, 2, 4, 6} if nested == "pow2" else {1, 2, 3, 4, 5, 6})


def test_every_part_learns_of_short_codes():
    tokenizer = build(nested="uniform").train()
    out = tokenizer(pictures(2, 3, 16, 16), positions=torch.tensor([1, 6]))
    out.x.square().mean().backward()
    assert all(parameter.grad is not None for parameter in tokenizer.parameters())
    assert tokenizer.networks.decoder.absent.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="needs encoder"):
        build(encoder={"name": "conv2d"})
    with pytest.raises(ValueError, match="has no grid"):
        build({"name": "multiscale", "scales": [1, 2]})
    with pytest.raises(ValueError, match="share of the training pictures"):
        build(full=2)
    with pytest.raises(ValueError, match="never leaves a code out"):
        build(nested="uniform", full=1.0)
