"""A small run of sounds, trained by the command: what it logs and plays, and what `mmtok evaluate` finds of it."""

import csv
import errno
import io
import json
import wave

import numpy as np
import pytest

from datamodules.writer import ShardWriter
from mmtok.cli import main

soundfile = pytest.importorskip("soundfile")

RATE = 8000
RECIPE = """
tokenizer: {name: audio, sample_rate: 8000, dim: 8, encoder: {name: seanet, channels: 4, strides: [4, 5]}}
quantizer: {name: rq, codebook_size: 16, depth: 2}
loss: {waveform: {name: l1}}
data: {name: audio, sample_rate: 8000, seconds: 0.25, batch_size: 4, val_batch_size: 3, workers: 0, streams: 2}
optim: {lr: 1.0e-3, ema: 0.9}
trainer: {max_steps: 4, val_every: 2, accelerator: cpu, threads: 1}
checkpoint: {every_steps: 4, every_minutes: 0}
log: {every_steps: 1, media_every_steps: 2, media_items: 3, tensorboard: true, progress: true}
"""


def spoken(digit, speaker, take):
    """A clip that a judge takes for words: its digit is the length of its bursts, its speaker their pitch."""
    generator = np.random.default_rng(100 * digit + 10 * speaker + take)
    time = np.arange(int(RATE * (0.5 + 0.05 * take))) / RATE
    tone = sum(np.sin(2 * np.pi * (150 + 120 * speaker) * k * time) / k for k in range(1, 5))
    bursts = np.sin(2 * np.pi * (2 + 3 * digit) * time) > -0.4
    buffer = io.BytesIO()
    samples = 0.15 * tone * bursts + 0.01 * generator.standard_normal(len(time))
    soundfile.write(buffer, samples.astype(np.float32), RATE, format="FLAC")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for split, takes in (("train", range(2, 6)), ("val", range(2))):
        with ShardWriter(folder / split, kind="audio", split=split) as writer:
            for digit in range(2):
                for number, speaker in enumerate(("ann", "bob", "cyd")):
                    for take in takes:
                        writer.add(f"{digit}_{speaker}_{take}", {"flac": spoken(digit, number, take)})
    (folder / "recipe.yaml").write_text(RECIPE)
    words = [f"data.shards={folder}/train", f"run_dir={folder}/run"]
    assert main(["train", str(folder / "recipe.yaml"), *words]) == 0
    return folder / "run"


def test_validation_logs_what_sounds_are_measured_by(run):
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/loss"]]
    assert [row["step"] for row in rows] == ["2", "4"]
    names = ("si_sdr", "mel", "stft", "si_sdr_bypass", "quantization_gap", "usage/active", "usage/1/perplexity")
    for name in names:
        assert np.isfinite(float(rows[-1][f"val/{name}"])), name
    assert np.isfinite(float(rows[-1]["si_sdr"]))


def test_pictures_and_sounds_are_kept_and_logged(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    media = run / "media"
    assert sorted(path.name for path in media.iterdir()) == [
        "input", *(f"step-{step:08d}{end}" for step in (1, 2, 4) for end in ("", ".png")),
    ]  # fmt: skip
    assert sorted(path.name for path in (media / "input").iterdir()) == [f"{i}_input.wav" for i in range(3)]
    names = sorted(path.name for path in (media / "step-00000004").iterdir())
    assert names == [f"{i}_reconstruction{end}.wav" for i in range(3) for end in ("", "_ema")]
    with wave.open(str(media / "input" / "1_input.wav")) as file:
        assert (file.getframerate(), file.getnframes()) == (RATE, int(RATE * 0.55))  # its own length, no padding
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"audio": 0})
    events.Reload()
    assert len(events.Audio("media/0_input")) == 1
    assert [event.step for event in events.Audio("media/2_reconstruction_ema")] == [1, 2, 4]


@pytest.fixture(scope="module")
def report(run):
    target = run / "evaluation" / "val-step-4.json"
    assert main(["evaluate", str(run), "--baselines", "--probe", "--judged", "4", "--device", "cpu"]) == 0
    return json.loads(target.read_text())


def test_the_figures_the_issue_asks_for_are_in_the_file(report):
    metrics = report["metrics"]
    assert report["samples"] == 12
    assert {"si_sdr", "mel", "stft", "silent_clips", "quantization_gap", "bitrate_efficiency"} <= {*metrics}
    # 0.5 and 0.55 s are 200 and 220 frames of 20 samples, without a remainder
    assert metrics["bits_per_second"] == pytest.approx(400 * 8)
    assert metrics["tokens_per_second"] == pytest.approx(800)
    assert metrics["real_time_factor_encode"] > 0
    assert metrics["real_time_factor_decode"] > 0
    assert [level["size"] for level in report["usage"]] == [16, 16]
    entropies = [level["entropy"] for level in report["usage"]]
    assert metrics["bitrate_efficiency"] == pytest.approx(sum(entropies) / 8)


def test_judges_are_measured_or_said_to_be_absent(report):
    choices = report["choices"]
    for name in ("pesq", "stoi", "dnsmos"):
        assert (name in report["metrics"]) != (name in choices["absent"])
        assert choices["definitions"][name].startswith("absent: pip install") == (name in choices["absent"])
    for name, judged in choices["judged_clips"].items():
        assert judged["judged"] + sum(judged["left_out"].values()) == (1 if name == "dnsmos" else 4)


def test_quality_is_given_for_every_number_of_levels_and_for_opus(report):
    assert [(row["levels"], row["bits_per_second"]) for row in report["by_levels"]] == [(1, 1600.0), (2, 3200.0)]
    assert report["by_levels"][-1]["si_sdr"] == report["metrics"]["si_sdr"]
    if "absent" in report["choices"]["baselines"]:
        pytest.skip("PyAV is not installed")
    assert [row["codec"] for row in report["baselines"]] == ["Opus 6 kb/s", "Opus 12 kb/s"]
    for row in report["baselines"]:
        assert row["bits_per_second"] == pytest.approx(row["asked_bits_per_second"], rel=0.4)
        assert row["clips"] == report["samples"]
        assert row["metrics"].keys() >= {"si_sdr", "mel", "stft"}


def test_the_probe_stands_beside_chance(report):
    labels = report["probe"]["labels"]
    assert {name: (one["classes"], one["chance"]) for name, one in labels.items()} == {
        "digit": (2, pytest.approx(1 / 2)), "speaker": (3, pytest.approx(1 / 3)),
    }  # fmt: skip
    assert labels["digit"]["folds"] == 3  # no speaker is in two


def test_spectrograms_and_usage_are_drawn_and_told(report, run, capsys):
    drawn = {path.name for path in (run / "evaluation").glob("*.png")}
    assert drawn == {"val-step-4-reconstructions.png", "val-step-4-usage.png"}
    target = run / "again.json"
    assert main(["evaluate", str(run), "--samples", "4", "--judged", "2", "--device", "cpu", "--out", str(target)]) == 0
    out = capsys.readouterr().out
    assert "4 clips, 2.1 s: SI-SDR dB" in out
    assert "3,200 bits/s, 800 tokens/s, bitrate efficiency" in out
    assert "times real time to encode" in out
    assert "2 levels" in out
    judged = json.loads(target.read_text())["choices"]["judged_clips"]
    assert all(one["judged"] + sum(one["left_out"].values()) <= 2 for one in judged.values())


def test_judges_can_be_left_out(run, tmp_path, capsys):
    target = tmp_path / "x.json"
    words = ["--samples", "2", "--device", "cpu", "--out", str(target)]
    assert main(["evaluate", str(run), *words, "--judged", "0"]) == 0
    assert "PESQ is absent: no clip was to be judged" in capsys.readouterr().out
    found = json.loads(target.read_text())
    assert not {"pesq", "stoi", "dnsmos"} & found["metrics"].keys()
    assert main(["evaluate", str(run), *words, "--judged", "-1"]) == 2
    assert "--judged=-1 is negative" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "file/x.json"])
def test_figures_that_cannot_be_kept_are_not_measured(run, tmp_path, capsys, monkeypatch, place):
    (tmp_path / "file").touch()
    monkeypatch.setattr("mmtok.cli.sounds.measure", lambda *args: pytest.fail("it measured first"))
    assert main(["evaluate", str(run), "--device", "cpu", "--out", str(tmp_path / place)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_a_full_disk_is_found_before_the_measuring(run, tmp_path, capsys, monkeypatch):
    def full(**kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    monkeypatch.setattr("mmtok.cli.sounds.measure", lambda *args: pytest.fail("it measured first"))
    assert main(["evaluate", str(run), "--device", "cpu", "--out", str(tmp_path / "x.json")]) == 2
    assert "space" in capsys.readouterr().err


def test_labels_that_nobody_has_are_one_line(run, tmp_path, capsys):
    words = [
        "--probe",
        "--probe-keys",
        "(?P<word>never)",
        "--samples",
        "2",
        "--judged",
        "1",
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "x.json"),
    ]
    assert main(["evaluate", str(run), *words]) == 2
    assert "do not all match '(?P<word>never)'" in capsys.readouterr().err
