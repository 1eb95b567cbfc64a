from dataclasses import replace

import pytest
import torch

from datamodules.queries import Query
from mmtok.corpus import Trie
from mmtok.downstream.docids import DocidWriter, hashed, rows_of
from mmtok.downstream.layers import ModelConfig
from mmtok.downstream.results import Ledger, table
from mmtok.downstream.retrieve import (
    ALIKE,
    ARMS,
    BM25,
    COLUMNS,
    SEMANTIC,
    RetrieveConfig,
    expanded,
    pairs,
    prepare,
    retrieve,
    settings,
)  # fmt: skip

SMALL = RetrieveConfig(
    width=32, heads=2, depth=1, dropout=0.0, updates=150, batch=64, every=50, rates=(1e-2,), words=6, buckets=97,
    shortest=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def texts(corpus):
    """Every text names its item's ids in words."""
    return {key: f"about row{a} and column{b} of it" for key, (a, b) in zip(corpus.keys, corpus.ids, strict=True)}


@pytest.fixture(scope="module")
def queries(corpus):
    """Items 0 to 23 are asked for in training; of the test, 0 to 7 are among them and 32 to 39 are not."""
    asked = {"train": range(24), "val": range(24, 32), "test": [*range(8), *range(32, 40)]}
    return [
        Query(f"column{corpus.ids[i][1]} where? row{corpus.ids[i][0]}", f"i{i}", split)
        for split, items in asked.items()
        for i in items
    ]


@pytest.fixture(scope="module")
def measured(corpus, texts, queries, tmp_path_factory):
    path = tmp_path_factory.mktemp("retrieve") / "retrieve.json"
    ledger = Ledger(path, "retrieve", settings(SMALL, corpus, texts, queries))
    retrieve(prepare(corpus, texts, queries, SMALL), SMALL, ledger, 1, say=lambda line: None)
    return ledger


def test_items_are_found_by_what_their_texts_say_though_no_training_query_asked_for_them(measured):
    by_arm = {row["arm"]: row["figures"] for row in measured.rows}
    assert tuple(by_arm) == ARMS
    assert by_arm[BM25]["recall@1 seen"] == by_arm[BM25]["recall@1 unseen"] == 1
    assert by_arm[SEMANTIC]["recall@1 seen"] > 0.9
    assert by_arm[SEMANTIC]["recall@1 unseen"] > 0.7
    assert by_arm[SEMANTIC]["valid"] == 1


def test_what_no_seed_changes_is_measured_once(measured, corpus, texts, queries, monkeypatch):
    monkeypatch.setattr("mmtok.downstream.results.Ledger.write", lambda self: None)
    monkeypatch.setattr("mmtok.downstream.retrieve.train", None)  # of what stands nothing is trained again
    again = Ledger(measured.path, "retrieve", settings(SMALL, corpus, texts, queries))
    with pytest.raises(TypeError):
        retrieve(prepare(corpus, texts, queries, SMALL), SMALL, again, 2, say=lambda line: None)
    assert [row["arm"] for row in again.rows if row["seed"]] == []
    again.rows += [row | {"seed": 1} for row in again.rows if row["arm"] not in ALIKE]
    retrieve(prepare(corpus, texts, queries, SMALL), SMALL, again, 2, say=lambda line: None)
    assert len(again.rows) == len(measured.rows) + 2
    assert "± 0" not in table(again, COLUMNS, ARMS)


def test_groups_without_queries_have_no_figures_rather_than_nought(corpus, texts, queries, tmp_path):
    unseen = [one for one in queries if one.split != "test" or int(one.item[1:]) >= 32]
    prepared = prepare(corpus, texts, unseen, SMALL)
    assert prepared.facts["test_of_seen_items"] == 0
    ledger = Ledger(tmp_path / "x.json", "retrieve", {})
    short = replace(SMALL, updates=1, every=1)
    retrieve(prepared, short, ledger, 1, say=lambda line: None)
    assert not [name for row in ledger.rows for name in row["figures"] if name.endswith(" seen")]


def test_a_batch_holds_spans_of_the_items_texts_and_training_queries_alone(corpus, texts, queries):
    prepared = prepare(corpus, texts, queries, SMALL)
    words, items = next(pairs(prepared, SMALL, seed=0))
    assert words.shape[0] == len(items) == 64
    of_item = [set(hashed(text, 97)) for text in prepared.texts]
    for row, item in zip(words[:32].tolist(), items[:32].tolist(), strict=True):
        own = [word for word in row if word]
        assert len(own) >= 2
        assert set(own) <= of_item[item]
    assert set(items[32:].tolist()) <= set(range(24))
    assert torch.equal(words, next(pairs(prepared, SMALL, seed=0))[0])


def test_bm25_may_read_the_queries_that_the_model_learns_of_and_no_others(corpus, texts, queries):
    prepared = prepare(corpus, texts, queries, SMALL)
    longer = expanded(prepared)
    assert longer[3] == prepared.texts[3] + "\ncolumn3 where? row0"
    assert longer[30] == prepared.texts[30]
    assert prepared.texts[3] == texts["i3"]


def test_padding_changes_neither_loss_nor_answers(corpus):
    torch.manual_seed(0)
    config = ModelConfig(width=32, heads=2, dropout=0.0)
    model = DocidWriter(corpus, Trie(corpus), config, buckets=97, length=8, beams=20).eval()
    queries = rows_of([[3, 4], [5, 6, 7, 8, 9], []], 8)
    items = torch.tensor([1, 2, 3])
    with torch.no_grad():
        alone = [model.loss(rows_of([[3, 4]], 8), items[:1]), model.loss(queries[1:2], items[1:2])]
        torch.testing.assert_close(model.loss(queries, items) * 3, sum(alone) + model.loss(queries[2:], items[2:]))
        assert model.answers(queries, 5)[0].tolist() == model.answers(rows_of([[3, 4]], 8), 5)[0].tolist()
        assert torch.isfinite(model.loss(queries[2:], items[2:]))  # a query without a word


def test_what_is_lacking_is_said(corpus, texts, queries):
    with pytest.raises(ValueError, match=r"no query of the splits val, test asks for one of the 40 items"):
        prepare(corpus, texts, [one for one in queries if one.split == "train"], SMALL)
    some = dict(list(texts.items())[:39])
    prepared = prepare(corpus, some, [*queries, Query("x", "nothing", "test")], SMALL)
    assert prepared.facts["items_without_text"] == 1
    assert prepared.facts["queries_without_item"] == 2


@pytest.mark.parametrize(("field", "value"), [("spans", 0.0), ("beams", 3), ("shortest", 9), ("updates", 0)])
def test_what_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        replace(SMALL, **{field: value})
