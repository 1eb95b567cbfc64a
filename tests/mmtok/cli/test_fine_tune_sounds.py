"""A codec that was trained, and goes on at other settings by the command, as docs/audio.md tells people to."""

import json

import torch

import mmtok
from mmtok.cli import main
from mmtok.export.folder import write_model


def test_a_frozen_encoder_keeps_its_codes_while_the_decoder_learns(codec, sound_shards, talk, tmp_path, capsys):
    write_model(mmtok.load(codec), tmp_path / "import")
    words = [str(codec), "logger/quiet", f"init_from={tmp_path}/import", f"run_dir={tmp_path}/fine"]
    assert main(["train", *words, "optim.freeze=[encoder,quantizer]", "optim.ema=0", "optim.lr=1e-2"]) == 0
    assert f"init_from {tmp_path}/import: " in capsys.readouterr().out
    before, after = mmtok.load(codec), mmtok.load(tmp_path / "fine")
    x = before.preprocess(talk)
    codes = after.encode(x)
    assert torch.equal(codes.ids, before.encode(x).ids)
    assert not torch.allclose(after.decode(codes), before.decode(codes))


def test_another_sample_rate_and_deeper_codes_start_from_what_there_is(codec, tmp_path, capsys):
    words = [str(codec), "logger/quiet", f"init_from={codec}", f"run_dir={tmp_path}/fine"]
    assert main(["train", *words, "tokenizer.sample_rate=8000", "data.sample_rate=8000", "quantizer.depth=3"]) == 0
    told = capsys.readouterr().out
    assert "  from 16,000 to 8,000 Hz\n  new: quantizer.parts.2\n" in told
    assert "sample rate 8,000 Hz | frames/s 400 | levels 3 of 16" in told


def test_an_import_is_measured_on_a_set_that_is_named(codec, sound_shards, tmp_path, capsys):
    write_model(mmtok.load(codec), tmp_path / "import")
    assert main(["evaluate", str(tmp_path / "import")]) == 2
    assert "has no validation set. Name one: --shards SET." in capsys.readouterr().err
    words = ["--shards", str(sound_shards / "val"), "--samples", "3", "--judged", "1", "--device", "cpu"]
    for subject, out in ((tmp_path / "import", "a.json"), (codec, "b.json")):
        assert main(["evaluate", str(subject), *words, "--out", str(tmp_path / out)]) == 0
    one, other = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert one["choices"]["weights"] == "imported"
    assert one["samples"] == other["samples"] == 3
    for name in ("si_sdr", "mel", "bits_per_second"):
        assert abs(one["metrics"][name] - other["metrics"][name]) < 1e-3, name
