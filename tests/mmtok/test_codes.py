import pytest
import torch

from mmtok.codes import Codes, CodeSpec

SPEC = CodeSpec("image", (1024, 512), downsample=16, channels=3)


def codes() -> Codes:
    ids = torch.tensor([[[1, 2, 3, -1]] * 2])
    return Codes(
        ids, torch.tensor([3]), torch.tensor([[32, 30]]), (2, 2), ((1, 1), (1, 3)), {"gain": torch.tensor([0.5])}
    )


def test_a_file_gives_back_the_codes_and_their_meaning(tmp_path):
    codes().save(tmp_path / "x.safetensors", SPEC)
    loaded, spec = Codes.load(tmp_path / "x.safetensors")
    assert spec == SPEC
    assert torch.equal(loaded.ids, codes().ids)
    assert torch.equal(loaded.extras["gain"], codes().extras["gain"])
    assert (loaded.grid, loaded.scales) == (codes().grid, codes().scales)


def test_codes_that_cannot_be_written_are_an_error_of_the_file(tmp_path):
    with pytest.raises(OSError, match="No such file") as failed:
        codes().save(tmp_path / "nowhere" / "x.safetensors", SPEC)
    assert failed.value.filename == str(tmp_path / "nowhere" / "x.safetensors")


def test_other_files_are_refused_by_name(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "text").write_text("no codes")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights")
    for name in ("text", "weights", "missing"):
        with pytest.raises(ValueError, match=name):
            Codes.load(tmp_path / name)


def test_bits_of_a_slower_level_count_by_its_stride():
    assert SPEC.bits_per_position == 19
    assert CodeSpec("audio", (1024, 1024), stride=(1, 2)).bits_per_position == 15
