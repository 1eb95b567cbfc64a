"""Every verb on a vocabulary of text that was fitted by the command: what works, and what says that it cannot."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import mmtok
from mmtok.cli import main

HOSTILE = "Привет, world! 漢字 <|endoftext|> 12345\r\n\x00 end"


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


def recipe(shards, run):
    return ["text/bpe", f"data.shards={shards}/train", f"run_dir={run}", "tokenizer.vocab_size=384"]


@pytest.fixture(scope="module")
def run(shards):
    folder = shards.parent / "run"
    assert main(["train", *recipe(shards, folder)]) == 0
    assert main(["evaluate", str(folder), "--reference", "en"]) == 0
    return folder


@pytest.mark.parametrize("form", ["safetensors", "mmc"])
def test_a_file_becomes_codes_and_the_very_same_file(run, tmp_path, form):
    (tmp_path / "a.txt").write_bytes(HOSTILE.encode())
    assert main(["encode", str(run), str(tmp_path / "a.txt"), "-o", str(tmp_path / "codes"), "--format", form]) == 0
    codes = [str(path) for path in (tmp_path / "codes").iterdir()]
    assert main(["decode", str(run), *codes, "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "a.txt").read_bytes() == HOSTILE.encode()


@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        (b"ok", ["--tile", "64"], "--tile is for pictures, and this tokenizer is of modality 'text'. Leave it out."),
        (b"ok", ["--chunk", "2"], "--chunk is for sounds, and this tokenizer is of modality 'text'. Leave it out."),
        (b"ok", ["--budget", "2"], "each is encoded whole"),
        (b"caf\xe9", [], "a.txt is no UTF-8: byte 3."),
    ],
)
def test_what_makes_no_sense_of_texts_is_refused(run, tmp_path, capsys, content, words, said):
    (tmp_path / "a.txt").write_bytes(content)
    assert main(["encode", str(run), str(tmp_path / "a.txt"), "-o", str(tmp_path / "codes"), *words]) == 2
    assert said in capsys.readouterr().err


def test_status_of_what_was_fitted_is_complete(run, capsys):
    assert main(["status", str(run)]) == 0
    assert re.search(r"complete +1/1", capsys.readouterr().out)


def test_the_report_has_languages_and_no_state_of_collapse(run, tmp_path):
    page = tmp_path / "report.html"
    assert main(["report", str(run), "-o", str(page)]) == 0
    text = page.read_text()
    assert "Languages: run" in text
    assert "Parity is against en" in text
    assert "fitted in one pass; <span" in text
    assert 'id="usage"' not in text
    assert 'id="curves"' not in text


def test_an_export_is_verified_evaluated_and_packed(run, shards, tmp_path, capsys):
    pytest.importorskip("transformers")
    out = tmp_path / "text"
    assert main(["export", str(run), str(out)]) == 0
    assert main(["verify", str(out)]) == 0
    assert json.loads((out / "evaluation.json").read_text())
    assert json.loads((out / "mmtok_text.json").read_text())["sample"]["sha256"]
    assert str(shards) not in (out / "README.md").read_text()
    assert main(["evaluate", str(out), "--shards", f"{shards}/val"]) == 0
    assert main(["vocab", "merge", "--base", str(out), "-o", str(tmp_path / "vocab")]) == 0
    words = ["--vocab", str(tmp_path / "vocab"), "--order", "text", "--to", "megatron", "-o", str(tmp_path / "packed")]
    assert main(["pack", f"{shards}/val", *words]) == 0
    ids = np.fromfile(next((tmp_path / "packed").glob("*.bin")), dtype=np.uint16)
    facts = json.loads((tmp_path / "packed" / "pack.json").read_text())
    tokenizer = mmtok.load(run)
    control = tokenizer.is_control().numpy()
    assert control[ids].sum() == facts["documents"] == facts["rows"]
    assert "кошка" in tokenizer.texts([ids[~control[ids]].tolist()])[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "RUN", "OUT", "--as", "hf-dac"], "was fitted. Leave --as out."),
        (["export", "RUN", "OUT", "--prefix", "txt"], "--prefix is for bundles"),
        (["tokenize", "RUN", "SHARDS", "OUT"], "mmtok pack takes texts as they are"),
        (["compare", "text/bpe", "--over", "tokenizer.model=bpe,unigram", "-o", "OUT"], "is fitted in one pass"),
        (["submit", "text/bpe", "--cluster", "cpu"], "sbatch --ntasks=1"),
        (["evaluate", "RUN", "--probe"], "--probe is of sounds, and"),
    ],
)
def test_what_is_for_trained_tokenizers_says_so(run, shards, tmp_path, capsys, words, said):
    places = {"RUN": str(run), "SHARDS": f"{shards}/val", "OUT": str(tmp_path / "out")}
    assert main([places.get(word, word) for word in words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_recipe_of_texts_lacks_its_data_and_its_engine_where_they_are_absent(monkeypatch, tmp_path):
    from mmtok.cli.checks import lacking

    monkeypatch.chdir(tmp_path)
    assert [line for line in lacking("text/bpe") if "data/help/train" not in line] == []
    monkeypatch.setattr("mmtok.cli.checks._version", lambda name: None)
    assert "the package tokenizers" in lacking("text/bpe")


def test_a_fit_that_is_killed_leaves_nothing_half_done_and_is_done_again(run, shards, tmp_path):
    """Killed when it has read its sample and counts, and when it writes: the same command then ends as if never."""
    folder = tmp_path / "killed"
    for stop in ("train_from_iterator", "save"):
        code = (
            "import mmtok.training.fit as fit, mmtok.tokenizers.engine as engine, sys, time\n"
            f"stop = {stop!r}\n"
            "def hang(*args, **kwargs):\n    print('here', flush=True); time.sleep(60)\n"
            "replace = fit.os.replace\n"
            "last = lambda a, b: (hang if str(b).endswith('.ckpt') else replace)(a, b)\n"
            "if stop == 'save':\n    fit.os.replace = last\n"
            "else:\n    engine.trainer_of = hang\n"
            "from mmtok.cli import main\nmain(sys.argv[1:])\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, "train", *recipe(shards, folder)], stdout=subprocess.PIPE, text=True
        )
        while process.stdout.readline().strip() != "here":
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "checkpoints" / "last.ckpt").exists()
    assert main(["train", *recipe(shards, folder)]) == 0
    assert mmtok.load(folder).fingerprint() == mmtok.load(run).fingerprint()
    assert {path.name for path in folder.rglob("*") if path.is_file()} == {"config.yaml", "metrics.csv", "last.ckpt"}


def test_a_full_disk_is_named_and_what_stood_stands(shards, tmp_path, monkeypatch, capsys):
    import mmtok.training.fit as under_test

    folder = tmp_path / "full"
    monkeypatch.setattr(
        under_test, "remove_partial", lambda folder: (folder / "last.ckpt.partial").symlink_to("/dev/full")
    )
    assert main(["train", *recipe(shards, folder)]) == 2
    err = capsys.readouterr().err
    assert "No space left on device" in err
    assert err.count("\n") == 1
    assert not list((folder / "checkpoints").iterdir())
