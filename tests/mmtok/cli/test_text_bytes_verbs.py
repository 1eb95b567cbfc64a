"""Neural tokenizers of text by the commands themselves: trained, continued, measured, encoded, compared, reported."""

import csv
import json

import pytest
import torch

from benchmarks.kills import tensors
from mmtok.cli import main
from mmtok.loading import read_checkpoint
from mmtok.training.module import TokenizerModule

SMALL = (
    "tokenizer.dim=8", "tokenizer.encoder.channels=4", "quantizer.codebook_size=16", "data.bytes=32",
    "data.val_bytes=64", "data.batch_size=4", "data.workers=0", "data.streams=2", "optim.warmup_steps=0",
    "trainer.accelerator=cpu", "trainer.threads=1", "trainer.max_steps=6", "trainer.val_every=3",
    "checkpoint.every_steps=2", "log.every_steps=2", "log.media_every_steps=4", "deterministic=true",
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    home = tmp_path_factory.mktemp("texts")
    for language, word in (("en", "words in a row "), ("ja", "言葉を並べて")):
        (home / "of" / language).mkdir(parents=True)
        for i in range(20):
            (home / "of" / language / f"{i}.txt").write_text(f"{i} {word * (i % 7 + 1)}", encoding="utf-8")
    assert main(["shards", "build", str(home / "of"), "-o", str(home / "shards"), "--val-fraction", "0.3"]) == 0
    return home / "shards"


def train(texts, folder, *more):
    words = ["train", "text/vq_bytes", "logger/quiet", f"data.shards={texts}/train", f"run_dir={folder}", *SMALL]
    return main([*words, *more])


@pytest.fixture(scope="module")
def run(texts):
    assert train(texts, texts.parent / "run") == 0
    return texts.parent / "run"


def rows(run):
    with (run / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in found]


def test_validation_logs_what_comes_back_and_at_how_many_bits(run):
    last = rows(run)[-1]
    names = ("byte_accuracy", "exact", "exact_pieces", "bits_per_byte", "unigram_bits_per_byte", "quantization_gap")
    assert all(last[f"val/{name}"] for name in (*names, "usage/active", "loss/bytes"))
    assert float(last["val/bits_per_byte"]) == pytest.approx(4 / 4, rel=0.05)  # and what is not full
    assert last["byte_accuracy"]
    shown = (run / "media" / "step-00000004.txt").read_text()
    assert "-- text 0, input" in shown
    assert "reconstruction (EMA)" in shown


def test_a_killed_run_ends_as_an_uninterrupted_one(texts, run, tmp_path, monkeypatch):
    update = TokenizerModule._update

    def dying(self, *args):
        if self.trainer.global_step == 5:
            raise ProcessLookupError
        update(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(TokenizerModule, "_update", dying)
        assert train(texts, tmp_path / "run") != 0
    assert train(texts, tmp_path / "run") == 0
    one, other = (
        dict(tensors(read_checkpoint(home / "checkpoints" / "last.ckpt"))) for home in (run, tmp_path / "run")
    )
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    assert rows(run) == rows(tmp_path / "run")


def test_evaluate_tells_of_codes_beside_vocabularies_and_compressors(run, capsys):
    assert main(["evaluate", str(run), "--baselines"]) == 0
    said = capsys.readouterr().out
    assert "bytes that come back: en" in said
    assert "BPE of " in said
    report = json.loads((run / "evaluation" / "val-step-6.json").read_text())
    codecs = [row["codec"] for row in report["baselines"]]
    assert codecs[:2] == ["zlib", "xz"]
    assert all(row["metrics"]["byte_accuracy"] == 1 for row in report["baselines"])
    assert report["choices"]["round_trip_bytes_that_differ"] == 0
    assert "-- text 0, output" in (run / "evaluation" / "val-step-6-texts.txt").read_text()


@pytest.mark.parametrize("form", ["safetensors", "mmc"])
def test_files_become_codes_and_texts_again(run, tmp_path, form):
    contents = {"a": "four", "empty": "", "letters": "naïve 🙂"}
    for name, text in contents.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = [str(tmp_path / f"{name}.txt") for name in contents]
    assert main(["encode", str(run), *files, "-o", str(tmp_path / "codes"), "--format", form]) == 0
    codes = [str(path) for path in (tmp_path / "codes").iterdir()]
    assert main(["decode", str(run), *codes, "-o", str(tmp_path / "back")]) == 0
    assert (tmp_path / "back" / "empty.txt").read_bytes() == b""
    assert len(list((tmp_path / "back").iterdir())) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["encode", "RUN", "FILE", "-o", "OUT", "--tile", "64"], "--tile is for pictures"),
        (["encode", "RUN", "FILE", "-o", "OUT", "--chunk", "1"], "--chunk is for sounds"),
        (["encode", "RUN", "FILE", "-o", "OUT", "--budget", "2"], "budget=2"),
        (["evaluate", "RUN", "--lpips", "vgg"], "--lpips is of pictures"),
        (["export", "RUN", "OUT"], "there is no bundle for tokenizers of 'text'"),
        (["tokenize", "RUN", "SHARDS", "OUT"], "tokenized for pictures, sounds and vectors"),
        (["train", "RECIPE", "loss.bytes.name=l1"], "compares signals, and this tokenizer gives logits"),
        (["train", "RECIPE", "data.name=texts"], "gives documents, and this tokenizer is trained on text"),
        (["train", "RECIPE", "adversary.weight=0.1"], "an adversary judges signals"),
        (["train", "RECIPE", "data.bytes=2"], "bytes=2 must be at least 4"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_in_a_line(run, texts, tmp_path, capsys, words, said):
    (tmp_path / "a.txt").write_text("text")
    places = {"RUN": [str(run)], "FILE": [str(tmp_path / "a.txt")], "OUT": [str(tmp_path / "out")],
              "SHARDS": [str(texts / "val")],
              "RECIPE": ["text/vq_bytes", f"data.shards={texts}/train", f"run_dir={tmp_path}/run"]}  # fmt: skip
    assert main([one for word in words for one in places.get(word, [word])]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("mmtok: ")
    assert said in error


@pytest.mark.slow
def test_quantizers_are_compared_by_the_same_verb(texts, tmp_path):
    own = [word for word in SMALL if not word.startswith("quantizer.")]
    ask = [word for one in ("prior.steps=2", "prior.width=16", "prior.heads=2", "probe.steps=2", "cost.rounds=1",
                            "usage.tokens_per_code=1") for word in ("--ask", one)]  # fmt: skip
    words = ["compare", "text/vq_bytes", "logger/quiet", f"data.shards={texts}/train", *own, "trainer.max_steps=2"]
    over = ["--over", "quantizer=none,10bit/rq", "--measures", "reconstruction,prior,probe,cost,levels,usage"]
    assert main([*words, *over, *ask, "--codecs", "-o", str(tmp_path / "out")]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    none, rq = results["rows"]
    assert {"byte_accuracy", "exact_pieces", "unigram_bits_per_byte", "byte_accuracy_levels_1"} <= {*rq["figures"]}
    assert {"prior_bits_per_byte", "transformer_accuracy", "usage_active"} <= {*rq["figures"]}
    assert "bits_per_byte" not in none["figures"]
    assert [row["codec"].split()[0] for row in results["codecs"]] == ["zlib", "xz", "BPE", "BPE"]
    assert (tmp_path / "out" / "cells" / "rq" / "seed-0" / "examples" / "output-0.txt").is_file()


def test_a_page_tells_of_the_run(run, tmp_path):
    assert main(["report", str(run), "-o", str(tmp_path / "page.html")]) == 0
    assert "byte_accuracy" in (tmp_path / "page.html").read_text()
