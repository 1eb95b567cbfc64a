import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.interactions import Interactions
from mmtok.corpus import Corpus, Trie
from mmtok.downstream.histories import Histories, leave_last_out
from mmtok.downstream.layers import ModelConfig
from mmtok.downstream.names import dealt
from mmtok.downstream.recommend import (
    ARMS,
    COLUMNS,
    RANDOM,
    SEMANTIC,
    RecommendConfig,
    answer,
    prepare,
    recommend,
    settings,
)  # fmt: skip
from mmtok.downstream.recommenders import Generative, Popularity, SASRec
from mmtok.downstream.results import Ledger, table

SMALL = RecommendConfig(
    width=32, heads=2, depth=1, dropout=0.0, updates=120, batch=32, every=40, rates=(1e-2,), history=10, user_tokens=50
)


@pytest.fixture(scope="module")
def measured(corpus, chain, tmp_path_factory):
    path = tmp_path_factory.mktemp("recommend") / "recommend.json"
    ledger = Ledger(path, "recommend", settings(SMALL, corpus, chain))
    recommend(prepare(corpus, chain, SMALL), SMALL, ledger, 1, say=lambda line: None)
    return ledger


def test_what_follows_in_a_chain_is_learned_and_popularity_knows_nothing_of_it(measured):
    by_arm = {row["arm"]: row["figures"] for row in measured.rows}
    assert tuple(by_arm) == ARMS
    assert by_arm[SEMANTIC]["recall@5"] > 0.9
    assert by_arm["SASRec"]["recall@5"] > 0.9
    assert by_arm["popularity"]["recall@10"] < 0.6
    assert by_arm[RANDOM]["recall@5"] > by_arm["popularity"]["recall@5"]


def test_every_answer_of_every_arm_names_an_item_that_may_be_told(measured):
    assert [row["figures"]["valid"] for row in measured.rows] == [1.0] * len(ARMS)
    assert all("valid freely" in row["figures"] for row in measured.rows if row["arm"] in (SEMANTIC, RANDOM))


def test_a_stopped_evaluation_goes_on_with_what_it_lacks(measured, corpus, chain, monkeypatch):
    again = Ledger(measured.path, "recommend", settings(SMALL, corpus, chain))
    assert again.rows == json.loads(json.dumps(measured.rows))
    again.rows = [row for row in again.rows if row["arm"] != "popularity"]
    monkeypatch.setattr("mmtok.downstream.recommend.train", None)  # of what stands nothing is trained again
    recommend(prepare(corpus, chain, SMALL), SMALL, again, 1, say=lambda line: None)
    kept = {row["arm"]: row["figures"]["recall@10"] for row in again.rows}
    assert kept == {row["arm"]: row["figures"]["recall@10"] for row in measured.rows}


def test_figures_that_were_asked_otherwise_are_not_mixed(measured, corpus, chain):
    asked = settings(replace(SMALL, width=64), corpus, chain)
    with pytest.raises(ValueError, match=r"asked otherwise \(width=32\). Name another file"):
        Ledger(measured.path, "recommend", asked)
    with pytest.raises(ValueError, match="interactions="):
        Ledger(measured.path, "recommend", settings(SMALL, corpus, chain.at_least(5)))


def test_a_damaged_file_of_figures_is_named(corpus, chain, tmp_path):
    asked = settings(SMALL, corpus, chain)
    path = tmp_path / "x.json"
    for text, said in (("{", "no valid JSON"), (json.dumps({"task": "recommend", "asked": asked}), "is damaged")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"x.json.*{said}"):
            Ledger(path, "recommend", json.loads(json.dumps(asked)))


def test_items_that_training_never_showed_are_told_apart(corpus):
    data = Interactions(tuple("uvw"), (("i0", "i1", "i2", "i9"), ("i0", "i1", "i2", "i3"), ("i3", "i2", "i1", "i0")))
    prepared = prepare(corpus, data, SMALL)
    assert prepared.facts["new_targets"] == pytest.approx(1 / 3)
    ledger = Ledger(Path("unused"), "recommend", {})
    ledger.write = lambda: None
    recommend(prepared, replace(SMALL, updates=1, every=1), ledger, 1, say=lambda line: None)
    assert all({"recall@10 known", "recall@10 new"} <= set(row["figures"]) for row in ledger.rows)


def test_the_table_has_a_row_an_arm(measured):
    lines = table(measured, COLUMNS, ARMS).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(ARMS)
    assert len({len(line) for line in lines}) == 1


def models(corpus):
    torch.manual_seed(0)
    config = ModelConfig(width=32, heads=2, dropout=0.0)
    yield Generative(corpus, Trie(corpus), config, length=10, users=50, beams=20).eval()
    yield SASRec(len(corpus), config, length=10).eval()


def test_padding_changes_neither_losses_nor_answers(corpus):
    items = torch.tensor([[3, 9, 1, 30], [7, 2, -1, -1]])
    for model in models(corpus):
        with torch.no_grad():
            both = Histories(items, torch.tensor([1, 2]))
            alone = [Histories(items[:1], both.users[:1]), Histories(items[1:, :2], both.users[1:])]
            together = model.loss(both) * 4
            torch.testing.assert_close(together, model.loss(alone[0]) * 3 + model.loss(alone[1]))
            assert model.answers(both, 5).tolist() == [model.answers(one, 5)[0].tolist() for one in alone]


def test_a_later_item_changes_nothing_that_came_before_it(corpus):
    first, second = (Histories(torch.tensor([[3, 9, 1, last]]), torch.tensor([1])) for last in (30, 31))
    generative, sasrec = models(corpus)
    with torch.no_grad():
        torch.testing.assert_close(generative.read(first)[0][:, :4], generative.read(second)[0][:, :4])
        torch.testing.assert_close(sasrec.read(first)[:, :4], sasrec.read(second)[:, :4])
        assert not torch.equal(sasrec.read(first)[:, 4], sasrec.read(second)[:, 4])


def test_the_loss_of_training_is_what_is_read_when_a_history_ends_there(corpus):
    """The second of two ways to compute -log p of the item after a history: a shift by one would part them."""
    items = torch.tensor([[3, 9, 1, 30]])
    generative, sasrec = models(corpus)
    with torch.no_grad():
        pieces = [generative.loss(Histories(items[:, :n], torch.tensor([1]))) * (n - 1) for n in (4, 3)]
        history = Histories(items[:, :3], torch.tensor([1]))
        found = generative.written(history, len(corpus))
        states, valid = generative.read(history)
        place = (generative.trie.rows_of(generative.trie.walk(found))[0] == 30).nonzero().item()
        seen = valid[:, None]
        direct = generative.writer.nats(found[:, place : place + 1], states[:, 3:4], states, seen)
        torch.testing.assert_close(direct.sum(), pieces[0] - pieces[1])
        scores = sasrec.read(history)[:, 3] @ sasrec.items.weight.T
        whole = sasrec.loss(Histories(items, torch.tensor([1]))) * 3
        rest = sasrec.loss(Histories(items[:, :3], torch.tensor([1]))) * 2
        torch.testing.assert_close(-scores.log_softmax(-1)[0, 30], whole - rest)


def test_the_user_token_reaches_what_is_written(corpus):
    generative, _ = models(corpus)
    generative.history.users.weight.data.normal_()
    items = torch.tensor([[3, 9, 1]] * 2)
    with torch.no_grad():
        states, _ = generative.read(Histories(items, torch.tensor([1, 2])))
    assert not torch.allclose(states[0], states[1])


def test_what_a_user_has_is_not_told_unless_users_take_things_twice(corpus):
    asked = leave_last_out(Interactions(("u", "v"), (("i0", "i1", "i2"), ("i3", "i4", "i5"))), corpus.rows, 10).test
    model = Popularity(torch.arange(40, 0, -1), seed=0)
    assert answer(model, asked, False, "cpu")[0][:, 0].tolist() == [2, 0]
    assert answer(model, asked, True, "cpu")[0][:, 0].tolist() == [0, 0]


def test_ids_dealt_at_random_are_the_same_names_of_other_items(corpus):
    other = dealt(corpus, 1)
    assert sorted(map(tuple, other.ids.tolist())) == sorted(map(tuple, corpus.ids.tolist()))
    assert not np.array_equal(other.ids, corpus.ids)
    assert np.array_equal(dealt(corpus, 1).ids, other.ids)


def test_items_without_ids_are_counted_by_name_and_left_out(corpus):
    data = Interactions(("u", "v"), (("i0", "zz", "i1", "i2"), ("i3", "i4", "i5", "aa")))
    prepared = prepare(corpus, data, SMALL)
    assert prepared.facts["items_without_ids"] == {"count": 2, "first": ["aa", "zz"]}
    assert sorted(prepared.split.test.wanted.tolist()) == [2, 5]
    with pytest.raises(ValueError, match="of 6 items 6 have none, as a"):
        prepare(corpus, Interactions(("u", "v"), (("a", "b", "c"), ("d", "e", "f"))), SMALL)


def test_items_that_share_their_ids_are_refused(corpus, chain):
    twice = Corpus(corpus.keys, corpus.ids // 2, corpus.sizes, corpus.kinds, "x")
    with pytest.raises(ValueError, match="items of the corpus have the ids of another"):
        prepare(twice, chain, SMALL)


def test_users_are_drawn_by_their_names(corpus, chain):
    some = prepare(corpus, chain, replace(SMALL, users=50))
    backwards = Interactions(chain.users[::-1], chain.sequences[::-1])
    again = prepare(corpus, backwards, replace(SMALL, users=50))
    assert some.facts["users"] == 50
    assert some.split.test.wanted.tolist() == again.split.test.wanted.tolist()


@pytest.mark.parametrize(
    ("field", "value"), [("beams", 5), ("validated", 0), ("history", 0), ("rates", ()), ("heads", 3), ("dropout", 1.0)]
)
def test_what_makes_no_sense_is_refused(field, value):
    with pytest.raises(ValueError, match=field):
        replace(SMALL, **{field: value})
