"""`mmtok evaluate RUN --task recommend` and `--task retrieve`, as a person types them."""

import json

import numpy as np
import pytest

from datamodules.vectoritem import to_npy
from datamodules.writer import ShardWriter
from mmtok.cli import main
from mmtok.corpus import Corpus

pytest.importorskip("pyarrow")
QUICK = [
    f"--ask={word}"
    for word in ("updates=4", "every=2", "batch=8", "rates=[1e-2]", "width=16", "heads=2", "depth=1", "beams=12")
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A corpus of twenty items, who took them, their texts in shards, and what asks for them."""
    home = tmp_path_factory.mktemp("downstream")
    keys = [f"i{n}" for n in range(20)]
    ids = np.stack([np.arange(20) // 4, np.arange(20) % 4], 1)
    Corpus(tuple(keys), ids, (5, 4), ("code", "code"), "made up").save(home / "item_to_codes.parquet")
    rows = [f"u{u},i{(u + 3 * n) % 20},{n}" for u in range(30) for n in range(6)]
    (home / "interactions.csv").write_text("\n".join(["user,item,time", *rows, "u0,lost,9"]) + "\n")
    with ShardWriter(home / "items", kind="vectors", split="train") as writer:
        for n, key in enumerate(keys):
            vector = np.full(3, n, dtype=np.float32)
            writer.add(key, {"npy": to_npy(vector), "txt": f"a text about number{n} and more".encode()})
    asked = [f"number{n},i{n},{('train', 'val', 'test', 'test')[n % 4]}" for n in range(20)]
    (home / "queries.csv").write_text("\n".join(["query,item,split", *asked, "number1 again,i0,test"]) + "\n")
    return home


def evaluate(home, task, *words):
    files = {
        "recommend": ["--interactions", home / "interactions.csv"],
        "retrieve": ["--queries", home / "queries.csv"],
    }
    own = files.get(task, [])
    return main(["evaluate", str(home), "--task", task, *map(str, own), *QUICK, "--seeds", "2", *map(str, words)])


def test_recommend_prints_its_table_and_goes_on_from_its_file(home, capsys):
    assert evaluate(home, "recommend", "--ask", "user_tokens=7") == 0
    first = capsys.readouterr().out
    assert "30 of 30 users" in first
    assert "1 items have no ids and are left out: lost" in first
    assert [line for line in first.splitlines() if line.startswith(("| semantic ids", "| SASRec", "| popularity"))]
    held = json.loads((home / "evaluation" / "recommend-interactions.json").read_text())
    assert len(held["rows"]) == 8
    assert held["summary"]["SASRec"]["recall@10"]["count"] == 2
    assert evaluate(home, "recommend", "--ask", "user_tokens=7") == 0
    again = capsys.readouterr().out
    assert "seed 0" not in again
    assert again.splitlines()[-7:] == first.splitlines()[-7:]
    assert evaluate(home, "recommend") == 2
    assert "asked otherwise (user_tokens=7)" in capsys.readouterr().err


def test_retrieve_tells_seen_and_unseen_items_apart(home, capsys):
    assert evaluate(home, "retrieve", "--items", home / "items", "--ask", "words=8") == 0
    said = capsys.readouterr().out
    assert (
        "20 items with ids and a text; queries: 5 to train on, 5 to validate, 11 to test, 1 of these for items" in said
    )
    held = json.loads((home / "evaluation" / "retrieve-queries.json").read_text())
    assert held["summary"]["BM25"]["recall@1 unseen"]["mean"] == 1
    assert [row["seed"] for row in held["rows"] if row["arm"] == "BM25"] == [0]


@pytest.mark.parametrize(
    ("task", "words", "said"),
    [
        ("recommend", ["--queries", "x.csv"], "--queries is of --task retrieve"),
        ("recommend", ["--shards", "x"], "--shards is of --task reconstruct"),
        ("recommend", ["--ask", "updats=3"], "updats is no field of 'recommend'. Did you mean updates?"),
        ("recommend", ["--ask", "updates"], "write NAME=VALUE"),
        ("recommend", ["--ask", "updates=fast"], "updates must be an int, got 'fast'"),
        ("recommend", ["--seeds", "0"], "--seeds=0 must be at least 1"),
        ("recommend", ["--interactions", "none.csv"], "there is no file none.csv"),
        ("retrieve", [], "--task retrieve needs the texts of the items: --items SET"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(home, task, words, said, capsys):
    assert evaluate(home, task, *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


def test_tasks_say_what_they_lack(home, capsys):
    assert main(["evaluate", str(home), "--task", "recommend"]) == 2
    assert "--interactions FILE" in capsys.readouterr().err
    assert main(["evaluate", str(home), "--task", "retrieve", "--items", "x"]) == 2
    assert "--queries FILE" in capsys.readouterr().err


def test_a_tokenizer_of_vectors_gives_the_items_their_ids_first(home, tmp_path, capsys):
    words = ["tokenizer.width=3", "quantizer.codebook_size=4", "quantizer.depth=2", f"data.shards={home / 'items'}"]
    assert main(["train", "vector/rkmeans", *words, f"run_dir={tmp_path / 'run'}"]) == 0
    own = ["--task", "recommend", "--interactions", str(home / "interactions.csv"), *QUICK, "--seeds", "1"]
    assert main(["evaluate", str(tmp_path / "run"), *own]) == 2
    assert "is a tokenizer, and needs items to give ids to: --items SET" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), *own, "--items", str(home / "items"), "--extra-size", "20"]) == 0
    assert "ids of 4 x 4 x 20" in capsys.readouterr().out
    assert (tmp_path / "run" / "evaluation" / "recommend-interactions.json").is_file()
