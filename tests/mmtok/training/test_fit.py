"""`mmtok train text/...` and `mmtok evaluate`: one pass, one checkpoint, and figures a person can check by hand."""

import json

import pytest

import mmtok
from mmtok.cli import main

SMALL = ("tokenizer.vocab_size=384",)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    for language, word in (("en", "the cat sat on the mat "), ("ru", "кошка сидела на ковре ")):
        (home / "files" / language).mkdir(parents=True)
        for i in range(30):
            (home / "files" / language / f"{i}.txt").write_text(word * 5 + str(i), encoding="utf-8")
    words = ["shards", "build", str(home / "files"), "-o", str(home / "shards"), "--names"]
    assert main([*words, r"/(?P<label>en|ru)/(?P<group>\d+)$"]) == 0
    return home / "shards"


@pytest.fixture(scope="module")
def run(shards):
    folder = shards.parent / "run"
    assert main(["train", "text/bpe", f"data.shards={shards}/train", f"run_dir={folder}", *SMALL]) == 0
    return folder


def test_a_fit_is_loaded_like_any_run(run):
    tokenizer = mmtok.load(run)
    assert tokenizer.decode(tokenizer.encode(["the cat"])) == ["the cat"]
    assert tokenizer.spec.modality == "text"


def test_the_same_command_again_says_that_it_is_done(run, shards, capsys):
    assert main(["train", "text/bpe", f"data.shards={shards}/train", f"run_dir={run}", *SMALL]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["train", str(run)]) == 0


def test_another_recipe_in_the_same_folder_is_refused(run, shards, capsys):
    assert main(["train", "text/bpe", f"data.shards={shards}/train", f"run_dir={run}", *SMALL, "seed=3"]) != 0
    assert "seed: 0 -> 3" in capsys.readouterr().err


def test_several_ranks_are_refused(shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "text/bpe", f"data.shards={shards}/train", f"run_dir={tmp_path / 'x'}", *SMALL]) != 0
    assert "one process" in capsys.readouterr().err


def test_training_settings_have_no_place(shards, capsys):
    assert main(["train", "text/bpe", f"data.shards={shards}/train", "optim.lr=1"]) != 0
    assert "optim is no field" in capsys.readouterr().err


def test_evaluation_by_hand(run, tmp_path):
    out = tmp_path / "figures.json"
    assert main(["evaluate", str(run), "--out", str(out), "--reference", "en"]) == 0
    found = json.loads(out.read_text())
    languages = found["choices"]["by_language"]
    tokenizer = mmtok.load(run)
    assert found["metrics"]["exact"] == 1
    assert found["metrics"]["unreached"] == 0
    assert languages["en"]["parity"] == 1
    tokens = {name: one["tokens"] for name, one in languages.items()}
    assert languages["ru"]["parity"] == pytest.approx(tokens["ru"] / tokens["en"])
    assert found["metrics"]["bytes_per_token"] == pytest.approx(
        sum(one["bytes"] for one in languages.values()) / sum(tokens.values())
    )
    assert found["metrics"]["vocabulary"] == tokenizer.spec.codebook_sizes[0]


def test_bytes_learn_nothing_and_cost_a_token_a_byte(shards, tmp_path):
    run, out = tmp_path / "run", tmp_path / "figures.json"
    assert main(["train", "text/bytes", f"data.shards={shards}/train", f"run_dir={run}"]) == 0
    assert main(["evaluate", str(run), "--out", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"]["bytes_per_token"] == 1


def test_an_unknown_reference_is_refused(run, capsys):
    assert main(["evaluate", str(run), "--reference", "xx"]) != 0
    assert "Languages that have some: en, ru" in capsys.readouterr().err


def test_weights_of_sets_that_a_fit_does_not_know_are_told(shards, tmp_path, capsys):
    for second, told in ((1, False), (3, True)):
        sets = f"data.shards=[{{path: {shards}/train}}, {{path: {shards}/train, weight: {second}}}]"
        assert main(["train", "text/bpe", sets, f"run_dir={tmp_path / str(second)}", *SMALL]) == 0
        assert ("weights of data.shards have no effect" in capsys.readouterr().out) == told
