"""Files of tensors."""

from __future__ import annotations

import os
import stat

import pytest
import torch
from safetensors.torch import load_file

from mmtok.tensorfile import write_tensors


def test_others_may_read_what_they_may_read_of_other_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_tensors({"a": torch.ones(2)}, tmp_path / "a.safetensors")
        (tmp_path / "plain").write_text("")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o640}


def test_views_of_one_memory_are_written(tmp_path):
    a = torch.arange(6.0).view(2, 3)
    write_tensors({"a": a, "t": a.T}, tmp_path / "a.safetensors", {"format": "pt"})
    assert torch.equal(load_file(tmp_path / "a.safetensors")["t"], a.T)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file") as failed:
        write_tensors({"a": torch.ones(2)}, tmp_path / "none" / "a")
    assert failed.value.filename == str(tmp_path / "none" / "a")
