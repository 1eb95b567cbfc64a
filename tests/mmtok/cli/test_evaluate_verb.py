"""A run measured by the verb: what the file holds, and what is drawn beside it."""

import json

import pytest

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
