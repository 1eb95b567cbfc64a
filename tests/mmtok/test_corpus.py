import json

import numpy as np
import pytest
import torch

from mmtok.corpus import Corpus, Trie
from mmtok.grouping import groups

RNG = np.random.default_rng(0)


def corpus(count=300, sizes=(4, 4, 4), method="extra", **more):
    ids = np.random.default_rng(0).integers(0, sizes[0], (count, len(sizes)))
    return Corpus.settle([f"item-{i:03d}" for i in range(count)], ids, sizes, "f" * 16, method=method, **more)


def test_the_extra_level_makes_names_of_colliding_codes_and_is_zero_for_unique_ones():
    made = corpus()
    assert made.kinds == ("code", "code", "code", "disambiguation")
    assert len(np.unique(made.ids, axis=0)) == len(made)
    counts = np.bincount(groups(made.ids[:, :3]))[groups(made.ids[:, :3])]
    assert (made.ids[counts == 1, 3] == 0).all()
    assert made.ids[:, 3].max() == counts.max() - 1


def test_the_extra_level_does_not_depend_on_the_order_of_items():
    ids = np.zeros((5, 2), dtype=np.int64)
    keys = ["e", "b", "d", "a", "c"]
    one = Corpus.settle(keys, ids, (3, 3), "f")
    two = Corpus.settle(sorted(keys), ids, (3, 3), "f")
    assert {key: one.ids[row, 2] for key, row in one.rows.items()} == {
        key: two.ids[row, 2] for key, row in two.rows.items()
    }


def test_a_group_larger_than_the_extra_level_is_refused_and_does_not_wrap():
    with pytest.raises(ValueError, match=r"257 items have the same codes .* raise extra_size to 257"):
        Corpus.settle([str(i) for i in range(257)], np.zeros((257, 3), dtype=np.int64), (4, 4, 4), "f")
    made = Corpus.settle([str(i) for i in range(256)], np.zeros((256, 3), dtype=np.int64), (4, 4, 4), "f")
    assert made.ids[:, 3].max() == 255


def test_none_leaves_collisions_where_they_are():
    made = corpus(method="none")
    assert made.kinds == ("code",) * 3
    assert len(np.unique(made.ids, axis=0)) < len(made)


def quantized(count, codes, seed=0):
    """Points, their nearest codes, and the costs of any code."""
    rng = np.random.default_rng(seed)
    x, table = rng.normal(size=(count, 2)), rng.normal(size=(codes, 2))
    costs = lambda rows: ((x[rows, None] - table) ** 2).sum(-1)  # noqa: E731
    prefix = np.zeros(count, dtype=np.int64)
    return np.stack([prefix, costs(np.arange(count)).argmin(1)], 1), costs, x


def test_sinkhorn_parts_what_collides_and_moves_nothing_else():
    ids, costs, _ = quantized(20, 64)
    made = Corpus.settle([str(i) for i in range(20)], ids, (1, 64), "f", method="sinkhorn", costs=costs)
    alone = np.bincount(ids[:, 1])[ids[:, 1]] == 1
    assert not alone.all()
    assert len(np.unique(made.ids, axis=0)) == 20
    np.testing.assert_array_equal(made.ids[alone], ids[alone])
    again = Corpus.settle([str(i) for i in range(20)], ids, (1, 64), "f", method="sinkhorn", costs=costs)
    np.testing.assert_array_equal(made.ids, again.ids)


def test_sinkhorn_takes_near_codes():
    ids, costs, _ = quantized(20, 64)
    made = Corpus.settle([str(i) for i in range(20)], ids, (1, 64), "f", method="sinkhorn", costs=costs)
    every = costs(np.arange(20))
    taken = every[np.arange(20), made.ids[:, 1]]
    assert taken.mean() < 0.3 * every.mean()


def test_sinkhorn_leaves_equal_vectors_together():
    costs = lambda rows: np.tile(np.arange(8.0), (len(rows), 1))  # noqa: E731
    ids = np.zeros((3, 2), dtype=np.int64)
    made = Corpus.settle(["a", "b", "c"], ids, (1, 8), "f", method="sinkhorn", costs=costs)
    assert len(np.unique(made.ids, axis=0)) == 1


def test_a_saved_corpus_comes_back(tmp_path):
    made = corpus()
    back = Corpus.load(made.save(tmp_path / "item_to_codes.parquet"))
    np.testing.assert_array_equal(back.ids, made.ids)
    assert (back.keys, back.sizes, back.kinds, back.fingerprint) == (
        made.keys, made.sizes, made.kinds, made.fingerprint
    )  # fmt: skip
    assert Corpus.load(tmp_path).keys == made.keys


def test_a_file_that_is_no_corpus_is_named(tmp_path):
    (tmp_path / "item_to_codes.parquet").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"item_to_codes\.parquet cannot be read as a corpus"):
        Corpus.load(tmp_path)
    with pytest.raises(ValueError, match="mmtok export RUN OUT --items"):
        Corpus.load(tmp_path / "absent.parquet")


@pytest.mark.parametrize(
    ("keys", "ids", "message"),
    [
        (["a", "a"], [[0, 0], [0, 1]], "'a' stands for several items"),
        (["a", "b"], [[0, 0], [0, 9]], "outside its levels"),
        (["a"], [[0, 0], [0, 1]], "got"),
    ],
)
def test_a_corpus_that_cannot_be_is_refused(keys, ids, message):
    with pytest.raises(ValueError, match=message):
        Corpus(tuple(keys), np.array(ids), (2, 2), ("code", "code"), "f")


def test_the_trie_allows_exactly_the_prefixes_that_exist():
    made = corpus(count=40)
    trie = made.trie()
    for depth in range(4):
        prefixes = (
            torch.cartesian_prod(*[torch.arange(4)] * depth).view(-1, depth) if depth else torch.zeros(1, 0).long()
        )
        allowed = trie.allowed(trie.walk(prefixes), depth)
        for prefix, mask in zip(prefixes.tolist(), allowed, strict=True):
            match = (made.ids[:, :depth] == np.array(prefix)).all(1)
            assert set(mask.nonzero().flatten().tolist()) == set(made.ids[match, depth].tolist())


def test_walking_an_item_finds_it_and_walking_off_the_trie_finds_nothing():
    made = corpus()
    trie = made.trie()
    leaves = trie.walk(torch.from_numpy(made.ids))
    assert trie.rows_of(leaves).tolist() == list(range(len(made)))
    assert [trie.items(leaf) for leaf in leaves.tolist()[:5]] == [[0], [1], [2], [3], [4]]
    off = torch.from_numpy(made.ids[:3]).clone()
    off[:, 3] = 200
    assert trie.walk(off).tolist() == [-1] * 3
    assert trie.rows_of(trie.walk(off)).tolist() == [-1] * 3
    assert not trie.allowed(torch.tensor([-1]), 2).any()


def test_the_trie_of_beams_keeps_their_shape():
    trie = corpus().trie()
    nodes = trie.walk(torch.zeros(2, 3, 1, dtype=torch.int64))
    assert nodes.shape == (2, 3)
    assert trie.allowed(nodes, 1).shape == (2, 3, 4)


def test_leaves_name_all_items_where_collisions_were_left():
    made = Corpus.settle(["a", "b", "c"], np.array([[0, 1], [1, 1], [0, 1]]), (2, 2), "f", method="none")
    trie = made.trie()
    assert trie.items(int(trie.walk(torch.tensor([[0, 1]])))) == [0, 2]


def test_the_trie_in_json_nests_ids_down_to_keys(tmp_path):
    made = Corpus.settle(["a", "b", "c"], np.array([[0, 1], [1, 1], [0, 1]]), (2, 2), "f")
    written = json.loads(made.trie().save(tmp_path / "trie.json", made).read_text())
    assert written["trie"] == {"0": {"1": {"0": ["a"], "1": ["c"]}}, "1": {"1": {"0": ["b"]}}}
    assert written["kinds"] == ["code", "code", "disambiguation"]


def test_an_empty_corpus_has_an_empty_trie():
    trie = Trie(Corpus((), np.zeros((0, 2), dtype=np.int64), (4, 4), ("code", "code"), "f"))
    assert not trie.allowed(torch.zeros(1, dtype=torch.int64), 0).any()
    assert trie.walk(torch.tensor([[1, 2]])).tolist() == [-1]
