"""Files to codes and back, through files."""

import json

import pytest
import torch
from PIL import Image

import mmtok
from mmtok.cli import main
from mmtok.codes import Codes, read_header


@pytest.fixture
def codes(run, photograph, tmp_path):
    assert main(["encode", str(run), str(photograph), "-o", str(tmp_path / "codes")]) == 0
    return tmp_path / "codes" / "cat.codes.safetensors"


def test_a_photograph_survives_the_round_trip_at_its_own_size(run, photograph, codes, tmp_path):
    assert main(["decode", str(run), str(codes), "-o", str(tmp_path / "pictures")]) == 0
    tokenizer = mmtok.load(run)
    with Image.open(photograph) as before, Image.open(tmp_path / "pictures" / "cat.png") as after:
        assert after.size == before.size
        want = tokenizer.to_pil(tokenizer.decode(tokenizer.encode(tokenizer.preprocess(photograph))))[0]
        assert after.tobytes() == want.tobytes()


def test_a_picture_of_an_odd_size_keeps_it(run, tmp_path):
    Image.new("RGB", (37, 21), (200, 30, 90)).save(tmp_path / "odd.png")
    assert main(["encode", str(run), str(tmp_path / "odd.png"), "-o", str(tmp_path)]) == 0
    found, _ = Codes.load(tmp_path / "odd.codes.safetensors")
    assert found.source_size.tolist() == [[21, 37]]
    assert found.grid == (6, 10)
    assert main(["decode", str(run), str(tmp_path / "odd.codes.safetensors"), "-o", str(tmp_path / "back")]) == 0
    with Image.open(tmp_path / "back" / "odd.png") as picture:
        assert picture.size == (37, 21)


def test_the_file_says_what_its_ids_mean_without_the_tokenizer(run, codes):
    found, spec = Codes.load(codes)
    assert spec == mmtok.load(run).spec
    assert found.ids.dtype == torch.int64
    assert found.ids.shape == (1, 1, found.grid[0] * found.grid[1])
    header = read_header(codes)
    assert header["source"] == "cat.jpg"
    assert json.loads(header["spec"])["codebook_sizes"] == [64]


def test_codes_of_another_state_are_refused(run, codes, tmp_path, capsys):
    other = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    other["state_dict"]["ema.networks.decoder.conv_in.weight"] += 1
    torch.save(other, tmp_path / "other.ckpt")
    assert main(["decode", str(tmp_path / "other.ckpt"), str(codes), "-o", str(tmp_path / "out")]) == 2
    assert "was written by another tokenizer" in capsys.readouterr().err


def test_nothing_is_written_over_or_twice_to_one_place(run, photograph, codes, tmp_path, capsys):
    assert main(["encode", str(run), str(photograph), "-o", str(codes.parent)]) == 2
    assert "exists already. Give --overwrite, or another folder." in capsys.readouterr().err
    assert main(["encode", str(run), str(photograph), "-o", str(codes.parent), "--overwrite"]) == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "cat.png")
    both = [str(photograph), str(tmp_path / "cat.png")]
    assert main(["encode", str(run), *both, "-o", str(tmp_path / "new")]) == 2
    assert "would both be written to" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("verb", "message"), [("encode", "cannot be read as a picture"), ("decode", "cannot be read as codes")]
)
def test_a_file_of_something_else_is_named(run, tmp_path, capsys, verb, message):
    path = tmp_path / "notes.txt"
    path.write_text("not what you think")
    assert main([verb, str(run), str(path), "-o", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "notes.txt" in told


def test_a_device_that_is_not_there_is_one_line(run, photograph, tmp_path, capsys):
    assert main(["encode", str(run), str(photograph), "-o", str(tmp_path), "--device", "tpu"]) == 2
    assert "device 'tpu' cannot be used" in capsys.readouterr().err


def test_one_bad_file_does_not_take_the_others_along(run, photograph, tmp_path, capsys):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"nothing")
    files = [str(bad), str(photograph)]
    assert main(["encode", str(run), *files, "-o", str(tmp_path / "codes")]) == 2
    told = capsys.readouterr().err
    assert "bad.jpg" in told
    assert "1 of 2 files could not be used; 1 are written." in told
    assert [path.name for path in (tmp_path / "codes").iterdir()] == ["cat.codes.safetensors"]
