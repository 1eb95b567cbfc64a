import itertools

import numpy as np
import pytest
import torch

from mmtok.corpus import Corpus, Trie
from mmtok.downstream.beam import search
from mmtok.downstream.layers import ModelConfig
from mmtok.downstream.writer import Codes, Writer

SIZES = (4, 5, 3)


def corpus_of(count, seed=0):
    every = np.array(list(itertools.product(*map(range, SIZES))))
    ids = every[np.random.default_rng(seed).permutation(len(every))[:count]]
    return Corpus(tuple(f"item{i}" for i in range(count)), ids, SIZES, ("code",) * 3, "made up")


@pytest.fixture
def writer():
    torch.manual_seed(0)
    return Writer(SIZES, ModelConfig(width=16, heads=2, dropout=0.0)).eval()


@pytest.fixture
def read():
    generator = torch.Generator().manual_seed(1)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    return torch.randn(2, 1, 16, generator=generator), torch.randn(2, 4, 16, generator=generator), valid[:, None]


def written(writer, trie, read, beams, **how):
    context, memory, valid = read
    with torch.no_grad():
        return search(
            lambda prefix: writer.following(prefix, context, memory, valid.expand(-1, prefix.shape[1], -1)),
            trie, len(memory), beams, **how,
        )  # fmt: skip


def by_force(writer, ids, read):
    """-nats of every name, one by one."""
    context, memory, valid = read
    with torch.no_grad():
        names = torch.from_numpy(ids).expand(2, -1, -1)
        return -writer.nats(names, context, memory, valid.expand(-1, names.shape[1], -1))


def test_a_wide_beam_ranks_every_item_as_trying_them_all_does(writer, read):
    corpus = corpus_of(17)
    found = written(writer, Trie(corpus), read, beams=60)
    scores = by_force(writer, corpus.ids, read)
    order = scores.argsort(1, descending=True)
    rows = Trie(corpus).rows_of(Trie(corpus).walk(found.ids))[:, :17]
    assert rows.tolist() == order.tolist()
    torch.testing.assert_close(found.scores[:, :17], scores.gather(1, order))


def test_a_narrow_beam_names_items_each_once_and_scores_them_rightly(writer, read):
    corpus = corpus_of(17)
    trie = Trie(corpus)
    found = written(writer, trie, read, beams=5)
    rows = trie.rows_of(trie.walk(found.ids))
    assert (rows >= 0).all()
    assert all(len(set(row)) == 5 for row in rows.tolist())
    torch.testing.assert_close(found.scores, by_force(writer, corpus.ids, read).gather(1, rows))


def test_more_beams_than_items_leave_places_without_an_item_and_no_item_twice(writer, read):
    trie = Trie(corpus_of(3))
    found = written(writer, trie, read, beams=10)
    rows = trie.rows_of(trie.walk(found.ids))
    assert [sorted(row) for row in rows.tolist()] == [[-1] * (rows.shape[1] - 3) + [0, 1, 2]] * 2
    assert (found.scores[rows < 0] == -torch.inf).all()


def test_without_the_trie_anything_may_be_written(writer, read):
    every = corpus_of(60)
    found = written(writer, Trie(corpus_of(1)), read, beams=60, free=True)
    order = by_force(writer, every.ids, read).argsort(1, descending=True)
    assert Trie(every).rows_of(Trie(every).walk(found.ids)).tolist() == order.tolist()


def test_the_same_id_of_two_levels_is_two_embeddings():
    codes = Codes((3, 3), 8)
    first, second = codes(torch.tensor([2, 2]))
    assert not torch.equal(first, second)
    assert len(codes.table.weight) == 6
    torch.testing.assert_close(codes(torch.tensor([2, 0]))[1], codes.table.weight[3])


def test_what_is_written_next_does_not_depend_on_other_items_or_on_what_is_not_seen(writer, read):
    context, memory, valid = read
    names = torch.tensor([[[1, 2, 0], [3, 4, 2], [0, 0, 1]]] * 2)
    seen = valid.expand(-1, 3, -1)
    nats = writer.nats(names, context, memory, seen)
    torch.testing.assert_close(writer.nats(names[:, 1:2], context, memory, seen[:, :1]), nats[:, 1:2])
    changed = memory.clone()
    changed[1, 2:] = 100.0
    torch.testing.assert_close(writer.nats(names, context, changed, seen), nats)
    padded = torch.cat([names, torch.full((2, 2, 3), -1)], 1)
    torch.testing.assert_close(writer.nats(padded, context, memory, valid.expand(-1, 5, -1))[:, :3], nats)


def test_probabilities_of_all_names_sum_to_one(writer, read):
    torch.testing.assert_close(by_force(writer, corpus_of(60).ids, read).exp().sum(1), torch.ones(2))


def test_items_that_only_the_extra_level_tells_apart_are_ranked_each_for_itself():
    draw = np.random.default_rng(3)
    raw = draw.integers(0, 3, (30, 2))
    corpus = Corpus.settle([f"item{i}" for i in range(30)], raw, (3, 3), "made up", extra_size=12)
    assert corpus.kinds[-1] == "disambiguation"
    assert len(np.unique(raw, axis=0)) < 10
    torch.manual_seed(0)
    writer = Writer(corpus.sizes, ModelConfig(width=16, heads=2, dropout=0.0)).eval()
    states = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1))
    read = states, states, torch.ones(2, 1, 1, dtype=torch.bool)
    trie = Trie(corpus)
    found = written(writer, trie, read, beams=40)
    rows = trie.rows_of(trie.walk(found.ids))[:, :30]
    assert rows.tolist() == by_force(writer, corpus.ids, read).argsort(1, descending=True).tolist()
