"""evaluate --task lengths, on the command line."""

import json
import shutil

import pytest
import torch

import mmtok
from mmtok.cli import main
from mmtok.export.verify import verify
from tests.conftest import SMALL
from tests.mmtok.export import tiny


@pytest.fixture
def row(tmp_path):
    return tiny.row_tokenizer(tmp_path / "row")


def evaluate(tokenizer, source, *words):
    return main(["evaluate", tokenizer, "--task", "lengths", "--shards", source, *words])


def test_what_lengths_are_worth_and_what_a_quality_takes(row, tmp_path, capsys):
    source = tiny.pictures(tmp_path / "set", 4)
    out = tmp_path / "lengths.json"
    assert evaluate(row, source, "--lengths", "2,6", "--image-size", "16", "--targets=-9,99", "--out", str(out)) == 0
    found = json.loads(out.read_text())
    assert [one["steps"] for one in found["by_length"]] == [2, 6]
    assert [one["met"] for one in found["searched"]] == [1.0, 0.0]
    assert found["searched"][0]["rank_correlation"] is None  # all keep one
    assert [one["fixed"] for one in found["searched"]] == [2, None]  # no length does what nobody reaches
    said = capsys.readouterr().out
    assert "4 items, codes cut along their positions" in said
    assert "same for all" in said


@pytest.mark.parametrize("words", [("--confidence", "2", "--targets", "9"), ("--confidence", "0.9")])
def test_a_confidence_is_a_share_and_of_targets(row, tmp_path, capsys, words):
    source = tiny.pictures(tmp_path / "set", 2)
    assert evaluate(row, source, "--image-size", "16", *words) == 2
    assert "--confidence" in capsys.readouterr().err


def test_encode_tells_what_codes_of_a_quality_read(row, photograph, tmp_path, capsys):
    for target, said in (("psnr=-20", " dB"), ("psnr=99", "short of 99")):
        words = ["encode", str(row), str(photograph), "-o", str(tmp_path / "codes"), "--budget", target, "--overwrite"]
        assert main(words) == 0
        out = capsys.readouterr().out
        assert said in out
        assert ("short of" in out) == (target == "psnr=99")


def test_levels_of_sounds_and_the_ladder(tmp_path, capsys):
    source = tiny.sounds(tmp_path / "set", 3)
    tokenizer = tiny.audio_tokenizer(tmp_path / "codec")
    assert evaluate(tokenizer, source, "--out", str(tmp_path / "a.json")) == 0
    assert [one["steps"] for one in json.loads((tmp_path / "a.json").read_text())["by_length"]] == [1, 2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lengths", "0"], "this tokenizer has 1 to 6 positions"),
        (["--lengths", "a,b"], "must be numbers with commas"),
        (["--features", "none"], "--features is of --task reconstruct"),
    ],
)
def test_what_makes_no_sense_is_refused(row, tmp_path, capsys, words, said):
    assert evaluate(row, tiny.pictures(tmp_path / "set", 3), *words) == 2
    assert said in capsys.readouterr().err


def test_codes_of_one_length_are_refused(tmp_path, capsys):
    plain = tiny.row_tokenizer(tmp_path / "plain", nested="none")
    assert evaluate(plain, tiny.pictures(tmp_path / "set", 3)) == 2
    assert "codes have one length" in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    """A run whose codes can be cut."""
    folder = tmp_path_factory.mktemp("lengths") / "run"
    own = [word for word in SMALL if not word.startswith("quantizer")]
    rq = "quantizer={name: rq, depth: 4, codebook_size: 8, dropout: 0.5}"
    words = ["train", "image/demo", "logger/quiet", f"data.shards={shards}/train", f"run_dir={folder}", *own, rq]
    assert main(words) == 0
    return folder


def test_other_weights_of_a_run_have_figures_of_their_own(trained, tmp_path):
    own = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    words = ["evaluate", str(own), "--task", "lengths", "--samples", "4", "--lengths", "4"]
    assert main(words) == 0
    assert main([*words, "--raw"]) == 0
    names = {path.name.partition("-step")[0] for path in (own / "evaluation").glob("lengths-*.json")}
    assert names == {"lengths-val", "lengths-val-raw"}


def test_a_predictor_is_fitted_beside_the_run_and_spends_budgets(trained, photograph, tmp_path, capsys):
    words = ["evaluate", str(trained), "--task", "lengths", "--samples", "8", "--targets", "8"]
    assert main(["encode", str(trained), str(photograph), "-o", str(tmp_path), "--budget", "psnr=8,predicted"]) == 2
    assert "has no predictor of lengths" in capsys.readouterr().err
    assert main([*words, "--fit", "40", "--confidence", "0.9"]) == 0
    assert (trained / "lengths.safetensors").is_file()
    said = capsys.readouterr().out
    assert "among 40 training items" in said
    assert "predicted, confidence 0.9" in said
    found = json.loads(next((trained / "evaluation").glob("lengths-*.json")).read_text())
    assert {"confidence", "met", "kept", "tokens"} == {*found["searched"][0]["predicted"]}
    assert main(["encode", str(trained), str(photograph), "-o", str(tmp_path), "--budget", "psnr=8,predicted"]) == 0
    assert main([*words, "--raw"]) == 0  # other weights have no predictor yet
    assert "predicted" not in capsys.readouterr().out


def test_half_a_bundle_spends_what_is_predicted_and_says_that_it_cannot_decode(trained, photograph, tmp_path, capsys):
    run, half = tmp_path / "run", tmp_path / "half"
    shutil.copytree(trained, run)
    assert main(["evaluate", str(run), "--task", "lengths", "--samples", "4", "--fit", "32"]) == 0
    assert main(["export", str(run), str(half), "--encoder-only"]) == 0
    words = ["encode", str(half), str(photograph), "-o", str(tmp_path / "codes")]
    assert main([*words, "--budget", "psnr=12,predicted"]) == 0
    capsys.readouterr()
    assert main([*words, "--overwrite", "--budget", "psnr=12"]) == 2
    assert "was exported without its decoder and cannot decode" in capsys.readouterr().err
    model = pytest.importorskip("transformers").AutoModel.from_pretrained(str(half), trust_remote_code=True)
    codes = model.encode(model.preprocess(photograph), budget="psnr=12,predicted")
    assert torch.equal(
        codes.lengths, mmtok.load(half).encode(model.preprocess(photograph), budget="psnr=12,predicted").lengths
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--fit", "5"], "Give 32 or more"), (["--fit", "40", "--raw"], "Leave --raw out"),
     (["--targets", "nan"], "is no quality")],
)  # fmt: skip
def test_a_fit_that_makes_no_sense_is_refused(trained, capsys, words, said):
    assert main(["evaluate", str(trained), "--task", "lengths", "--samples", "4", *words]) == 2
    assert said in capsys.readouterr().err


def test_what_was_not_trained_here_cannot_be_fitted(row, tmp_path, capsys):
    assert evaluate(row, tiny.pictures(tmp_path / "set", 3), "--fit", "40", "--out", str(tmp_path / "o.json")) == 2
    assert "is no run" in capsys.readouterr().err


@pytest.fixture(scope="module")
def family(shards, tmp_path_factory):
    """A run whose codes have digits."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    own = [word for word in SMALL if not word.startswith("quantizer")]
    lfq = "quantizer={name: lfq, bits: 5, dropout: 0.5}"
    words = ["train", "image/demo", "logger/quiet", f"data.shards={shards}/train", f"run_dir={folder}", *own, lfq]
    assert main(words) == 0
    return folder


def test_one_training_gives_a_family_of_vocabularies(family, photograph, tmp_path, capsys):
    out = tmp_path / "digits.json"
    words = ["evaluate", str(family), "--task", "lengths", "--samples", "4"]
    assert main([*words, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found["axis"] == "digits"
    assert [one["steps"] for one in found["by_length"]] == [1, 2, 3, 4, 5]
    assert [one["bits"] / one["tokens"] for one in found["by_length"]] == [1, 2, 3, 4, 5]
    whole = mmtok.load(family)
    codes = whole.encode(whole.preprocess(photograph))
    for digits in (2, 5):
        bundle = tmp_path / f"bundle-{digits}"
        assert main(["export", str(family), str(bundle), "--digits", str(digits)]) == 0
        assert verify(bundle, run_code=False) == []
        small = mmtok.load(bundle)
        assert small.spec.codebook_sizes == (2**digits,)
        assert torch.equal(small.encode(small.preprocess(photograph)).ids, codes.ids // 2 ** (5 - digits))
        again = small.decode(small.encode(small.preprocess(photograph)))
        torch.testing.assert_close(again, decoded(family, photograph, digits))
    capsys.readouterr()
    assert main([*words, "--targets", "12"]) == 2
    assert "codes of as many digits" in capsys.readouterr().err
    assert main(["export", str(family), str(tmp_path / "none"), "--digits", "6"]) == 2
    assert "1 to 5 digits" in capsys.readouterr().err


def decoded(run, picture, digits):
    tokenizer = mmtok.load(run, digits=digits)
    return tokenizer.decode(tokenizer.encode(tokenizer.preprocess(picture)))
