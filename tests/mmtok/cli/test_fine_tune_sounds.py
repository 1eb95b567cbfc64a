"""A codec that was trained, and goes on at other settings by the command, as docs/audio.md tells people to."""

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
