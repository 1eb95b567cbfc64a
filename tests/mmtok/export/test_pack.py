"""Documents become rows: whole, unless a text is longer than a row; and what makes no sense is refused."""

import json
import warnings

import numpy as np
import pytest

import mmtok
from mmtok.cli import main
from mmtok.export.bundle import write_bundle
from mmtok.export.documents import Document
from mmtok.export.pack import Facts, fill, pack
from mmtok.export.vocab import merge
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export.packing import go
from tests.mmtok.export.tokenizing import go as tokenize

pytest.importorskip("transformers")
parquet = pytest.importorskip("pyarrow.parquet")


def facts_of(length, pad=0):
    return Facts("megatron", length, "int32", 128, {}, [], None, 1, pad, [])


def test_only_a_document_longer_than_a_row_is_cut():
    generator = np.random.default_rng(0)
    documents = [Document(str(i), np.full(n, i + 1)) for i, n in enumerate(generator.integers(1, 70, 5000))]
    facts = facts_of(64)
    rows = list(fill(documents, facts, "split"))
    long = [one for one in documents if len(one.ids) > 64]
    assert facts.long == len(long) > 0
    seen = {}
    for row in rows:
        assert sum(row.lengths) <= len(row.ids) == 64
        at = 0
        for key, n in zip(row.keys, row.lengths, strict=True):
            assert (row.ids[at : at + n] == int(key) + 1).all()
            seen.setdefault(key, []).append(n)
            at += n
        assert (row.ids[at:] == 0).all()
    assert {key: sum(parts) for key, parts in seen.items()} == {one.key: len(one.ids) for one in documents}
    assert {key for key, parts in seen.items() if len(parts) > 1} == {one.key for one in long}
    assert 1 - sum(map(sum, seen.values())) / (64 * len(rows)) < 0.03


def test_long_documents_are_left_out_on_demand_and_counted():
    facts = facts_of(8)
    facts.tokens = 25
    rows = list(fill([Document("a", np.ones(5)), Document("b", np.ones(20))], facts, "drop"))
    assert [row.keys for row in rows] == [("a",)]
    assert (facts.long, facts.dropped, facts.tokens) == (1, 1, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orders": [("text", "video")]}, "'video' is in none of the sets. They have img, text"),
        ({"orders": [("text", "text")]}, "must name each part once"),
        ({"orders": [("text",), ("text",)]}, "says the same twice"),
        ({"to": "litdata"}, "give --length"),
        ({"length": 1}, "--length=1"),
        ({"eos": "<none>"}, "has no token '<none>'"),
        ({"orders": [("audio",)]}, "'audio' is in none of the sets"),
    ],
)
def test_what_makes_no_sense_is_refused(world, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        go(world, tmp_path / "out", "codes-image", **options)
    assert not (tmp_path / "out").exists()


def test_a_layout_of_several_rows_is_refused(world, tmp_path):
    from mmtok.export.token_spec import Layout

    write_bundle(mmtok.load(str(world / "a")), tmp_path / "audio", layout=Layout("parallel"))
    merge(world / "base", [tmp_path / "audio"], tmp_path / "vocab")
    with pytest.raises(ValueError, match="'aud' out as parallel, which is no one row"):
        pack([str(world / "codes-audio")], tmp_path / "vocab", tmp_path / "out", to="megatron")


def test_the_verb_says_what_it_did_and_writes_nothing_over(world, tmp_path, capsys):
    words = ["pack", str(world / "codes-image"), "--vocab", str(world / "vocab"), "--to", "megatron", "--length", "24"]
    words += ["--order", "text,image", "--long", "split", "-o", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "11 documents, " in told.out
    assert "documents are longer than 24 ids: cut into rows" in told.err
    assert json.loads((tmp_path / "out" / "pack.json").read_text())["orders"] == ["text,img"]
    assert main(words) == 2
    assert "is a pack already. Give --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_what_is_only_read_is_not_learnt(world, tmp_path):
    write_bundle(mmtok.load(world / "image"), tmp_path / "seen", header=True, role="understanding", prefix="img_in")
    merge(world / "base", [tmp_path / "seen", world / "audio"], tmp_path / "vocab")
    tokenize(tmp_path / "seen", world / "pictures", tmp_path / "codes", batch=4)
    sets, order = [str(tmp_path / "codes"), str(world / "codes-audio")], [("img_in", "audio")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack(sets, tmp_path / "vocab", tmp_path / "packed", to="parquet", length=512, orders=order)
    (file,) = (tmp_path / "packed").glob("*.parquet")
    table = parquet.read_table(file).to_pydict()
    vocabulary = Vocabulary.read(tmp_path / "vocab")
    specials, codes = vocabulary.only_read()
    assert specials == (vocabulary.places[0].start, vocabulary.places[0].pad + 1)
    (ends,) = vocabulary.read_items()
    for ids, labels, lengths in zip(table["input_ids"], table["labels"], table["lengths"], strict=True):
        ids, labels, inside = np.array(ids), np.array(labels), np.arange(len(ids)) < sum(lengths)
        read = ((ids >= specials[0]) & (ids < specials[1])) | ((ids >= codes[0]) & (ids < codes[1]))
        items = zip(*(np.flatnonzero(ids == one) for one in ends), strict=True)
        within = np.concatenate([np.arange(*item) for item in items])
        assert not read[within].all()  # digits of the header, which are text's
        read[within] = True
        assert (inside & read).any()
        assert (labels[inside & ~read] == ids[inside & ~read]).all()
        assert (labels[~inside | read] == -100).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of it is in these documents
        pack(sets, tmp_path / "vocab", tmp_path / "heard", to="webdataset", length=512, orders=[("audio",)])
    with pytest.warns(UserWarning, match="read and never written"):
        pack(sets, tmp_path / "vocab", tmp_path / "other", to="webdataset", length=512, orders=order)
    assert json.loads((tmp_path / "other" / "pack.json").read_text())["only_read"] == [list(specials), list(codes)]


def test_half_a_picture_is_not_packed_unless_asked_for(world, tmp_path):
    orders = [("text",), ("text", "image")]
    facts = go(world, tmp_path / "out", "codes-image", length=24, orders=orders, to="parquet")
    assert 0 < facts.dropped == facts.long < facts.documents
    text = go(world, tmp_path / "text", "codes-image", length=4, orders=[("text",)], to="parquet")
    assert text.long > 0 == text.dropped


def test_nothing_left_is_told_with_the_reason(world, tmp_path):
    with pytest.raises(ValueError, match=r"documents are longer than 4 ids: give a larger --length\."):
        go(world, tmp_path / "out", "codes-image", length=4, orders=[("image",)])
    assert not (tmp_path / "out").exists()


def test_what_a_trainer_would_find_out_late_is_said(world, tmp_path):
    with pytest.warns(UserWarning, match=r"the sets have texts, and documents are of img\. See --order"):
        go(world, tmp_path / "out", "codes-image")
