import numpy as np
import pytest
import torch

from mmtok.evaluation.vector_metrics import (
    adjusted_rand,
    coherence,
    collisions,
    equal_rows,
    joint_usage,
    neighbours,
    overlap,
    queries_of,
)


def hierarchy(count=2000, seed=0):
    """Vectors in a tree of 4 x 4 x 4 clusters, and the path of each."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, (count, 3))
    tables = [rng.normal(size=shape) * scale for shape, scale in (((4, 16), 2), ((4, 4, 16), 1), ((4, 4, 4, 16), 0.5))]
    x = tables[0][ids[:, 0]] + tables[1][ids[:, 0], ids[:, 1]] + tables[2][ids[:, 0], ids[:, 1], ids[:, 2]]
    x = x + 0.05 * rng.normal(size=x.shape)
    return torch.from_numpy(x - x.mean(0)).float(), ids


def test_collisions_count_equal_vectors_apart():
    x = torch.arange(10.0)[:, None].repeat(1, 3)
    x[9] = x[8]
    ids = np.array([[0, 0], [0, 0], [0, 1], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2], [2, 2]])
    found = collisions(ids, (3, 3), equal_rows(x))
    assert found.rate == pytest.approx(0.2)  # 8 names for 10 items
    assert found.duplicates == pytest.approx(0.1)
    assert found.beyond == pytest.approx(1 / 9)  # 8 names for 9 vectors
    assert found.shared == pytest.approx(0.4)
    assert (found.largest, found.slots) == (2, 0.9)


def test_equal_rows_are_found_by_their_bytes():
    x = torch.randn(5, 3)
    x[3] = x[1]
    group = equal_rows(x)
    assert group[3] == group[1]
    assert len(set(group.tolist())) == 4


def test_joint_usage_is_full_where_every_item_has_a_name():
    ids = np.stack(np.divmod(np.arange(12), 4), 1)
    assert joint_usage(ids, (3, 4)).active == 1
    assert joint_usage(ids, (3, 4)).perplexity_norm == pytest.approx(1)
    assert joint_usage(np.zeros((12, 2), dtype=np.int64), (3, 4)).active == pytest.approx(1 / 12)


def test_coherence_rises_with_the_prefix_of_a_hierarchy_and_not_of_shuffled_codes():
    x, ids = hierarchy()
    rows = coherence(x, ids, labels=ids[:, 0], same=np.arange(len(ids)))
    cosines = [row["cosine"] for row in rows]
    assert cosines == sorted(cosines)
    assert cosines[0] == pytest.approx(0, abs=0.05)
    assert cosines[3] > 0.95
    assert [row["purity"] for row in rows[1:]] == [1.0] * 3
    shuffled = coherence(x, np.random.default_rng(1).permutation(ids), same=np.arange(len(ids)))
    assert max(row["cosine"] for row in shuffled) < 0.1
    assert "purity" not in shuffled[0]


def test_coherence_leaves_copies_out():
    x = torch.randn(50, 4).repeat(2, 1)
    ids = np.tile(np.arange(50), 2)[:, None]
    assert [row["prefix"] for row in coherence(x, ids, same=equal_rows(x))] == [0.0]


def test_neighbours_are_those_of_the_full_matrix_without_the_item_itself():
    x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    queries = queries_of(300)[:50]
    distance = torch.cdist(x[queries], x)
    distance[torch.arange(50), queries] = torch.inf
    want = distance.topk(10, largest=False).indices
    assert overlap(neighbours(x, queries), want) > 0.999
    assert not (neighbours(x, queries) == queries[:, None]).any()


def test_overlap_is_a_share_whatever_the_order():
    one = torch.tensor([[1, 2, 3, 4]])
    assert overlap(one, torch.tensor([[4, 3, 9, 8]])) == 0.5
    assert overlap(one, one.flip(1)) == 1


def test_the_adjusted_rand_index_is_1_for_renamed_clusters_and_0_by_chance():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 8, 4000)
    assert adjusted_rand(one, (one * 3 + 1) % 8) == pytest.approx(1)
    assert adjusted_rand(one, rng.integers(0, 8, 4000)) == pytest.approx(0, abs=0.01)
