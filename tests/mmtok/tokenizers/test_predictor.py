"""The predictor of lengths: what it chooses, where it is kept, and what it refuses."""

import dataclasses

import pytest
import torch

import mmtok
from mmtok.evaluation.length_tables import rows_of_prediction
from mmtok.evaluation.lengths import measure_lengths
from mmtok.evaluation.predictor import fit_predictor
from mmtok.export.bundle import write_bundle
from mmtok.export.encoding import Encoder
from mmtok.export.verify import verify
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.budget import Quality, budget_of
from mmtok.tokenizers.latents import Latents
from mmtok.tokenizers.pixels import to_uint8, to_unit
from mmtok.tokenizers.predictor import FILE, LengthPredictor, attach

ENCODER = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 8}


def pictures(count, seed=0):
    """Flat ones and noisy ones, by a strength of their own: their quality can be told."""
    draws = torch.Generator().manual_seed(seed)
    strength = torch.rand(count, 1, 1, 1, generator=draws)
    return (torch.rand(count, 3, 16, 16, generator=draws) * 2 - 1) * strength


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    block = {"name": "image_1d", "dim": 8, "image_size": 16, "encoder": ENCODER, "nested": "uniform"}
    return build_tokenizer(block, {"name": "fsq"}).eval()


@pytest.fixture
def fitted(tokenizer):
    return fit_predictor(tokenizer, [pictures(60, 1), pictures(60, 2)])


def flat(ladder, quality, errors=0.0):
    """A predictor that says one thing of all items of 2 channels."""
    weights = torch.zeros(9, len(ladder))
    weights[-1] = torch.tensor(quality)
    spread = torch.full((101, len(ladder)), errors)
    return LengthPredictor("psnr", "positions", ladder, "", weights, torch.zeros(4), torch.ones(4), spread)


@pytest.mark.parametrize(
    ("quality", "target", "kept"),
    [
        ([10.0, 12.0, 14.0, 16.0], 9, 1),  # the shortest will do
        ([10.0, 12.0, 14.0, 16.0], 12, 2),
        ([10.0, 12.0, 14.0, 16.0], 12.5, 3),  # between 2 and 4, in log steps
        ([10.0, 12.0, 14.0, 16.0], 17, 8),  # none will
        ([10.0, 15.0, 11.0, 16.0], 13, 6),  # longer is not always better: only what stays good counts
    ],
)
def test_the_fewest_steps_from_which_on_the_quality_is_there(quality, target, kept):
    latents = Latents(torch.randn(3, 5, 2), None, None, torch.zeros(3, 2))
    assert flat((1, 2, 4, 8), quality).choose(latents, target, 0.5).tolist() == [kept] * 3
    assert flat((1, 2, 4, 8), [one + 3 for one in quality], 3.0).choose(latents, target, 0.5).tolist() == [kept] * 3


def test_quality_is_predicted_of_items_it_never_saw(tokenizer, fitted):
    assert fitted.items == 120
    assert fitted.explained > 0.3
    x = pictures(64, 3)
    target = float(measure_lengths(tokenizer, [x], [8], []).by_length[0]["psnr"])
    tokenizer.length_predictor = fitted.predictor
    shy, sure = (
        measure_lengths(tokenizer, [x], range(1, 9), [target], confidence=share).searched[0] for share in (0.5, 0.95)
    )
    assert abs(shy.predicted.met - shy.met) < 0.25
    assert sure.predicted.kept >= shy.predicted.kept
    assert len(rows_of_prediction(measure_lengths(tokenizer, [x], [8], [target]))) == 3


def test_encoding_by_it_needs_no_decoder(tokenizer, fitted, monkeypatch):
    tokenizer.length_predictor = fitted.predictor
    monkeypatch.setattr(tokenizer, "decode", None)
    monkeypatch.setattr(tokenizer.networks, "decoder", None)
    x = pictures(16, 4)
    budget = budget_of("psnr=14,predicted=0.9")
    assert budget == Quality(psnr=14, predicted=True, confidence=0.9)
    assert not budget.decodes
    codes = tokenizer.encode(x, budget=budget)
    assert codes.lengths.tolist() == fitted.predictor.choose(tokenizer.embed(x), 14, 0.9).tolist()
    assert torch.equal((codes.ids[:, 0] >= 0).sum(1), codes.lengths)


def test_a_file_keeps_it_and_a_changed_one_is_refused(tokenizer, fitted, tmp_path):
    path = tmp_path / FILE
    fitted.predictor.save(path)
    again = attach(tokenizer, tmp_path).length_predictor
    x = tokenizer.embed(pictures(4))
    torch.testing.assert_close(again.predict(x), fitted.predictor.predict(x))
    assert again.fits
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(ValueError, match="is damaged"):
        attach(tokenizer, tmp_path)
    path.write_bytes(whole[:40])
    with pytest.raises(ValueError, match="cannot be read"):
        attach(tokenizer, tmp_path)


def test_half_a_bundle_has_it_and_token_shards_are_written_by_it(tokenizer, fitted, tmp_path):
    tokenizer.length_predictor = dataclasses.replace(fitted.predictor, fits=False)
    assert not (write_bundle(tokenizer, tmp_path / "stale") / FILE).exists()
    tokenizer.length_predictor = fitted.predictor
    bundle = write_bundle(tokenizer, tmp_path / "bundle", part="encoder")
    assert verify(bundle, run_code=False) == []
    encoder = Encoder(mmtok.load(bundle), "cpu", "psnr=14,predicted=0.9")
    x = pictures(16, 4)
    codes = encoder(to_uint8(x), None)
    want = fitted.predictor.choose(tokenizer.embed(to_unit(to_uint8(x))), 14, 0.9)
    assert codes.lengths.tolist() == want.tolist()


def test_what_it_does_not_know_is_refused(tokenizer, fitted, tmp_path):
    x, asked = pictures(2), Quality(psnr=12, predicted=True)
    with pytest.raises(ValueError, match=r"has no predictor of lengths.*--fit"):
        tokenizer.encode(x, budget=asked)
    fitted.predictor.save(tmp_path / FILE)
    torch.nn.init.zeros_(tokenizer.networks.encoder.queries)
    with pytest.raises(ValueError, match="fitted for other weights"):
        attach(tokenizer, tmp_path).encode(x, budget=asked)
    tokenizer.length_predictor = dataclasses.replace(fitted.predictor, quality="snr")
    with pytest.raises(ValueError, match="knows snr, not psnr"):
        tokenizer.encode(x, budget=asked)
    with pytest.raises(ValueError, match="without predicted"):
        Quality(measure=lambda x, y, within: x, at_least=1, predicted=True)
    with pytest.raises(ValueError, match="too few"):
        fit_predictor(tokenizer, [x])


@pytest.mark.parametrize("text", ["psnr=24,guessed", "tokens=8,predicted", "psnr=24,predicted=2", "8,predicted"])
def test_budgets_that_say_nothing_are_refused(text):
    with pytest.raises(ValueError, match=f"budget={text} is none of"):
        budget_of(text)
