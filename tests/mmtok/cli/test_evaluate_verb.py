"""A run measured by the verb: what the file holds, and what is drawn beside it."""

import json
from types import SimpleNamespace

import pytest
import torch

from mmtok.cli import main


@pytest.fixture(scope="module")
def report(run):
    assert main(["evaluate", str(run), "--features", "dct", "--device", "cpu"]) == 0
    return json.loads((run / "evaluation" / "val-step-3.json").read_text())


def test_the_figures_the_issue_asks_for_are_in_the_file(report):
    metrics = report["metrics"]
    assert report["samples"] == 6
    assert {"psnr", "ssim", "FD-DCT", "bits_per_pixel", "tokens_per_image", "quantization_gap"} <= {*metrics}
    assert metrics["tokens_per_image"] == 8 * 8
    assert metrics["bits_per_pixel"] == pytest.approx(6 * 64 / 32**2)
    (codes,) = report["usage"]
    assert codes["size"] == 64
    assert codes["state"] == "n/a"  # 6 tokens a code are too few to tell


def test_every_choice_that_changes_a_number_is_in_the_file(report, shards):  # image.md trap 24
    choices = report["choices"]
    assert choices["data"]["set"] == str(shards / "val")
    assert choices["data"]["manifest"]
    assert choices["preprocessing"] == {
        "image_size": 32, "crop": "random", "resize": False, "interpolation": "bicubic", "grey": False,
    }  # fmt: skip
    assert (choices["weights"], choices["step"], choices["precision"]) == ("averaged", 3, "float32")
    assert choices["frechet"]["enough_samples"] is False
    assert {"mmtok", "torch"} <= {*choices["versions"]}
    assert choices["round_trip_max_difference"] == 0


def test_reconstructions_and_usage_are_drawn(report, run):
    drawn = {path.name for path in (run / "evaluation").glob("*.png")}
    assert drawn == {"val-step-3-reconstructions.png", "val-step-3-usage.png"}


def test_another_set_or_the_raw_weights_do_not_write_over_the_figures_of_the_run(report, run, shards):
    before = (run / "evaluation" / "val-step-3.json").read_bytes()
    few = ["--samples", "2", "--features", "none", "--device", "cpu"]
    assert main(["evaluate", str(run), "--raw", *few]) == 0
    assert main(["evaluate", str(run), "--shards", str(shards / "val"), *few]) == 0
    names = {path.name for path in (run / "evaluation").glob("*.json")}
    assert {"val-raw-step-3.json", f"{shards.name}-val-step-3.json"} <= names
    assert (run / "evaluation" / "val-step-3.json").read_bytes() == before


def test_a_device_that_is_not_there_is_one_line(run, capsys):
    assert main(["evaluate", str(run), "--device", "tpu"]) == 2
    assert "device 'tpu' cannot be used" in capsys.readouterr().err


def test_weights_set_and_place_can_be_chosen(report, run, shards, tmp_path):
    target = tmp_path / "raw.json"
    words = ["--raw", "--shards", str(shards / "train"), "--samples", "5", "--features", "none", "--out", str(target)]
    assert main(["evaluate", str(run), *words]) == 0
    raw = json.loads(target.read_text())
    assert raw["samples"] == 5
    assert raw["choices"]["weights"] == "as trained"
    assert raw["choices"]["data"]["set"] == str(shards / "train")
    assert not any(name.startswith("FD-") for name in raw["metrics"])


def test_codecs_stand_beside_the_tokenizer(report, run, tmp_path, capsys):
    target = tmp_path / "with.json"
    words = ["--baselines", "--features", "dct", "--lpips", "none", "--device", "cpu", "--out", str(target)]
    assert main(["evaluate", str(run), *words]) == 0
    read = json.loads(target.read_text())
    assert read["metrics"]["psnr"] == pytest.approx(report["metrics"]["psnr"])
    assert {"JPEG", "WebP"} <= {one["codec"] for one in read["baselines"]}
    for one in read["baselines"]:
        assert one["metrics"].keys() == {
            "psnr",
            "ssim",
            "mae",
            "high_frequency_ratio",
            "FD-DCT",
            "KID-DCT",
            "KID-DCT_std",
        }
        assert one["reached"] == (one["bits_per_pixel"] <= read["metrics"]["bits_per_pixel"])
    out = capsys.readouterr().out
    assert "tokenizer" in out
    assert "JPEG *" in out  # 32 x 32 pictures of 0.375 bits a pixel are 48 bytes
    assert "its lowest quality takes more than the tokenizer has" in out
    assert target.with_name("with-baselines.png").is_file()


def test_weights_of_lpips_that_are_asked_for_and_absent_are_one_line(run, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main(["evaluate", str(run), "--lpips", "alex", "--features", "none", "--device", "cpu"]) == 2
    assert "mmtok doctor --fetch lpips" in capsys.readouterr().err
    words = ["--features", "none", "--samples", "2", "--device", "cpu", "--out", str(tmp_path / "x.json")]
    assert main(["evaluate", str(run), *words]) == 0
    assert "LPIPS left out: the weights of alex. Run: mmtok doctor --fetch lpips" in capsys.readouterr().out


def test_a_measure_that_a_run_was_trained_with_is_named():
    """image.md section 3: a perceptual loss on a classifier lowers a classifier's distance far more than it helps."""
    from mmtok.cli.pictures import judges_of_training
    from mmtok.evaluation.comparison import Instruments
    from mmtok.evaluation.features import DCTFeatures, EffLite0Features
    from mmtok.losses.classifier import ClassifierConfig
    from mmtok.losses.perceptual import LPIPS, LPIPSConfig

    def judged(lpips_net, features):
        lpips = LPIPS.__new__(LPIPS)
        object.__setattr__(lpips, "config", LPIPSConfig(net=lpips_net))
        extractor = features.__new__(features)
        config = SimpleNamespace(loss={"seen": LPIPSConfig(net="alex"), "named": ClassifierConfig(), "off": None})
        return judges_of_training(config, Instruments(torch.device("cpu"), extractor, lpips))

    assert judged("alex", DCTFeatures) == {"LPIPS-alex": "loss.seen"}
    assert judged("vgg", EffLite0Features) == {"FD-EffLite0": "loss.named", "KID-EffLite0": "loss.named"}


def test_a_tokenizer_without_bits_has_no_equal_bits(tmp_path):
    from mmtok.cli.pictures import compare
    from mmtok.evaluation import EvaluationReport

    report = EvaluationReport(1, {"psnr": 20.0}, [], {})
    with pytest.raises(ValueError, match="without a quantizer has no bits"):
        compare(report, None, None, tmp_path / "val.json")


def test_a_bundle_of_pictures_is_measured_beside_itself(run, shards, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    assert main(["export", str(run), "-o", str(bundle)]) == 0
    words = ["evaluate", str(bundle), "--shards", str(shards / "val"), "--features", "none", "--lpips", "none"]
    assert main([*words, "--image-size", "32", "--device", "cpu"]) == 0
    found = json.loads((tmp_path / "bundle-evaluation" / "evaluation" / f"{shards.name}-val.json").read_text())
    assert found["choices"]["preprocessing"]["image_size"] == 32
    assert found["choices"]["weights"] == "imported"
    assert found["metrics"]["tokens_per_image"] == 8 * 8
    assert not (bundle / "evaluation").exists()


def test_a_bundle_without_a_set_says_what_it_lacks(run, tmp_path, capsys):
    assert main(["export", str(run), "-o", str(tmp_path / "bundle")]) == 0
    assert main(["evaluate", str(tmp_path / "bundle"), "--device", "cpu"]) == 2
    assert "Name one: --shards SET" in capsys.readouterr().err
