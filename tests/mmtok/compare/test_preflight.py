"""What would make every cell fail is refused before one is started, and by a dry run too."""

import json
from pathlib import Path

import pytest

from mmtok.cli import main
from mmtok.compare.arms import arms_over
from mmtok.compare.cells import run_cell
from mmtok.compare.plan import Comparison
from mmtok.schema import ConfigError
from mmtok.training.lease import Lease
from tests.conftest import SMALL

HERE = Path(__file__).parent
OWN = [word for word in SMALL if not word.startswith("quantizer.")]


def refused(capsys, *words):
    assert main(["compare", *map(str, words)]) == 2
    return capsys.readouterr().err


def recipe(shards, folder, *more):
    return ["image/demo", "logger/quiet", f"data.shards={shards}", *OWN, "-o", folder, *more]


@pytest.fixture
def planned(shards, tmp_path):
    """A comparison of one cell, saved and not done."""
    words = [f"data.shards={shards}/train", *OWN]
    made = Comparison.make(
        tmp_path / "of", ["image/demo", "logger/quiet"], words, arms_over(["quantizer=fsq"]), measures=["cost"]
    )
    made.save()
    return made


@pytest.mark.parametrize("dry", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--with", "x=no_such_module_here:make"], "--with no_such_module_here:make: No module named"),
        (["--with", "x=json:make"], "--with json:make: module 'json' has no attribute 'make'"),
        (["--with", f"x={HERE}"], f"--with {HERE}: it is no run with a checkpoint"),
        (["--with", "x=json:__name__"], "__name__ is a str, and no function"),
        (["--over", "quantizer=fsq", "--ask", "probe.steps=0"], "probe: steps=0 must be 1 or more"),
        (["--over", "quantizer=fsq", "--ask", "prior.steps=0"], "prior: steps=0 must be 1 or more"),
        (["--over", "quantizer=fsq", "--ask", "prior.heads=3"], "heads=3 do not divide width=128"),
        (["--over", "quantizer=fsq", "--ask", "probe.lr=.nan"], "lr=nan must be above 0"),
        (["--over", "quantizer=fsq", "--ask", "reconstruction.features=dctt"], "Did you mean dct?"),
        (["--over", "quantizer=fsq", "--data", "cifar=x"], "--data names the shards of a study"),
    ],
)
def test_what_no_cell_could_do_is_refused_at_once(shards, tmp_path, capsys, dry, more, said):
    assert said in refused(capsys, *recipe(f"{shards}/train", tmp_path / "out", *more, *dry))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_shards_that_are_not_there_or_of_another_kind_are_refused_at_once(sound_shards, tmp_path, capsys, dry):
    over = ["--over", "quantizer=fsq", *dry]
    assert str(tmp_path / "none") in refused(capsys, *recipe(tmp_path / "none", tmp_path / "out", *over))
    said = refused(capsys, "--study", "collapse", "--data", f"cifar={sound_shards}/train", "-o", tmp_path / "out", *dry)
    assert "data.name=images reads" in said
    assert not (tmp_path / "out").exists()


def test_a_study_without_data_names_what_it_wants(tmp_path, capsys):
    said = refused(capsys, "--study", "survey", "--dry-run", "-o", tmp_path / "out")
    assert "--data cifar=SHARDS" in said
    assert "--data digits=SHARDS" in said


def test_a_folder_that_is_not_there_is_told_as_such(tmp_path, capsys):
    assert f"there is nothing at {tmp_path}/none" in refused(capsys, tmp_path / "none")
    assert "it has no compare.json" in refused(capsys, tmp_path)
    assert "-o names no folder" in refused(capsys, "image/demo")


@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_another_recipe_is_refused_whatever_its_arms(shards, planned, capsys, dry):
    words = recipe(f"{shards}/train", planned.folder, "--over", "quantizer=lfq", *dry)
    said = refused(capsys, *words, "optim.lr=1e-4")
    assert "made with another settings (apart: optim.lr=1e-4)" in said
    assert [one.name for one in (planned.folder / "cells").iterdir()] == ["fsq"]


def test_a_damaged_measure_is_named_with_its_remedy(planned, capsys):
    (place, _), = planned.cells  # fmt: skip
    path = place / "measures" / "cost.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"options": {"batch": 32, "rounds": 5}, "figures": {"parameters": 3.0}}))
    assert main(["compare", str(planned.folder)]) == 0
    for damage in ('{"options": {"ba', "[]", '{"options": {}}'):
        path.write_text(damage)
        for words in (["compare", planned.folder], ["report", planned.folder, "--quick"]):
            assert main([*map(str, words)]) == 2
            said = capsys.readouterr().err
            assert f"{path} is damaged" in said
            assert "Remove it" in said


def test_two_writers_never_train_one_cell(planned):
    ((place, _),) = planned.cells
    held = Lease(place)
    held.acquire()
    try:
        with pytest.raises(ConfigError, match="is in use by process"):
            run_cell(place, say=lambda line: None)
    finally:
        held.release()
    assert not (place / "checkpoints").exists()
