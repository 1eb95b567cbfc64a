"""Folders that appear whole or not at all."""

import os

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
