"""Folders that appear whole or not at all."""

import os
import subprocess
import sys

import pytest

from mmtok.export.drafts import replaced


def write(target, text="new", overwrite=False):
    with replaced(target, "pack.json", overwrite) as draft:
        assert draft.parent == target.parent
        (draft / "pack.json").write_text(text)


def test_it_appears_whole_and_takes_the_place_of_another(tmp_path):
    target = tmp_path / "above" / "v1.2"
    write(target, "old")
    with pytest.raises(ValueError, match=r"is a pack already. Give --overwrite"):
        write(target)
    assert (target / "pack.json").read_text() == "old"
    write(target, overwrite=True)
    assert (target / "pack.json").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["v1.2"]
    (tmp_path / "plain").mkdir()
    assert target.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_nothing_is_left_of_what_fails(tmp_path):
    target = tmp_path / "out"
    write(target, "old")
    with pytest.raises(ZeroDivisionError), replaced(target, "pack.json", True):
        1 / 0  # noqa: B018
    assert (target / "pack.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_stood_there_stays_where_the_rename_fails(tmp_path, monkeypatch):
    target, rename = tmp_path / "out", os.replace
    write(target, "old")

    def fail(source, to):
        if str(source).endswith(".partial"):
            raise OSError(28, "no space")
        rename(source, to)

    monkeypatch.setattr("mmtok.export.drafts.os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write(target, overwrite=True)
    assert (target / "pack.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_at_once_do_not_mix(tmp_path):
    target = tmp_path / "out"
    with replaced(target, "pack.json", False) as first:
        (first / "pack.json").write_text("first")
        write(target, "second")
        with pytest.raises(ValueError, match="is a pack already"), replaced(target, "pack.json", False):
            pass
        (target / "pack.json").unlink()
        target.rmdir()
    assert (target / "pack.json").read_text() == "first"


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    with pytest.raises(ValueError, match="exists and is no pack"):
        write(tmp_path, overwrite=True)


KILLED = """
import os, sys
from pathlib import Path
from mmtok.export import drafts
target = Path(sys.argv[1])
rename = os.replace
def die(source, to):
    if sys.argv[2] == "publishing" and not str(to).endswith(".replaced"):
        os.kill(os.getpid(), 9)
    rename(source, to)
drafts.os.replace = die
with drafts.replaced(target, "pack.json", True) as draft:
    (draft / "pack.json").write_text("half")
    if sys.argv[2] == "writing":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("at", ["writing", "publishing"])
def test_what_a_killed_process_left_is_cleared_and_what_it_took_away_put_back(tmp_path, at):
    target = tmp_path / "v1.2"
    write(target, "old")
    with replaced(target, "pack.json", True) as living:  # of this process, which goes on
        (living / "pack.json").write_text("mine")
        done = subprocess.run([sys.executable, "-c", KILLED, str(target), at], check=False)
        assert done.returncode == -9
        left = {path.name for path in tmp_path.iterdir()}
        assert len(left) == 3  # a draft, and the target or what stood there
        assert (target.exists(), len(left)) == (at == "writing", 3)
        elsewhere = tmp_path / "v1.2.0123456789ab-7-7.x.partial"
        elsewhere.mkdir()
        (tmp_path / "v1.2.thesis.partial").mkdir()
        with pytest.raises(ValueError, match="is a pack already"):
            write(target)
        assert (target / "pack.json").read_text() == "old"
        assert living.exists()
    assert (target / "pack.json").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"v1.2", elsewhere.name, "v1.2.thesis.partial"}
