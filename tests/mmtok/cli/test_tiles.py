"""The option --tile of encode and decode."""

import pytest
import torch
from PIL import Image

from mmtok.cli import main
from mmtok.codes import Codes


@pytest.fixture
def picture(tmp_path):
    Image.effect_noise((75, 50), 80).convert("RGB").save(tmp_path / "big.png")
    return tmp_path / "big.png"


def codes_of(run, picture, folder, *words):
    assert main(["encode", str(run), str(picture), "-o", str(folder), *words]) == 0
    return folder / "big.codes.safetensors"


def test_tiles_write_the_files_of_the_whole(run, picture, tmp_path, capsys):
    whole, tiles = (codes_of(run, picture, tmp_path / name, "--tile", name) for name in ("off", "32"))
    told = capsys.readouterr().out.splitlines()
    assert told[0].endswith("positions x 1 levels")
    assert told[1].endswith("positions x 1 levels, in 6 tiles")
    assert torch.equal(Codes.load(whole)[0].ids, Codes.load(tiles)[0].ids)
    for name in ("off", "32"):
        assert main(["decode", str(run), str(tiles), "-o", str(tmp_path / name), "--tile", name]) == 0
    with Image.open(tmp_path / "off" / "big.png") as a, Image.open(tmp_path / "32" / "big.png") as b:
        difference = torch.frombuffer(bytearray(a.tobytes()), dtype=torch.uint8).int()
        difference -= torch.frombuffer(bytearray(b.tobytes()), dtype=torch.uint8).int()
        assert a.size == b.size == (75, 50)
        assert difference.abs().max() <= 1  # a rounding may turn over at 1e-7


def test_big_pictures_come_in_tiles_by_themselves(run, picture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmtok.tokenizers.tiling.BIG", 75 * 50 - 1)
    monkeypatch.setattr("mmtok.tokenizers.tiling.TILE", 40)
    codes = codes_of(run, picture, tmp_path / "codes")
    assert main(["decode", str(run), str(codes), "-o", str(tmp_path)]) == 2  # big.png is there
    assert main(["decode", str(run), str(codes), "-o", str(tmp_path / "back")]) == 0
    assert [line.endswith(", in 4 tiles") for line in capsys.readouterr().out.splitlines()] == [True, True]
    monkeypatch.setattr("mmtok.tokenizers.tiling.BIG", 75 * 50)
    codes_of(run, picture, tmp_path / "again")
    assert "tiles" not in capsys.readouterr().out


def test_approximate_tiles_say_so_on_the_line_of_their_file(run, picture, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmtok.networks.conv2d.Conv2dNetworks.reach", None)
    codes_of(run, picture, tmp_path / "codes", "--tile", "32")
    assert "in 6 tiles (approximate: how far its network sees is not known)" in capsys.readouterr().out


def test_a_tile_larger_than_the_picture_is_the_whole(run, picture, tmp_path, capsys):
    codes_of(run, picture, tmp_path / "codes", "--tile", "100000")
    assert "tiles" not in capsys.readouterr().out


@pytest.mark.parametrize("tile", ["0", "-4", "big", "1.5", ""])
def test_what_is_no_side_is_refused(run, picture, tmp_path, capsys, tile):
    with pytest.raises(SystemExit) as stopped:
        main(["encode", str(run), str(picture), "-o", str(tmp_path / "codes"), f"--tile={tile}"])
    assert stopped.value.code == 2
    assert f"'{tile}' is no side of a tile. Give pixels" in capsys.readouterr().err


def test_a_tile_below_the_stride_is_one_line(run, picture, tmp_path, capsys):
    assert main(["encode", str(run), str(picture), "-o", str(tmp_path / "codes"), "--tile", "3"]) == 2
    assert capsys.readouterr().err == "mmtok: tile=3 is smaller than the stride of 4 pixels. Use 4 or more.\n"
