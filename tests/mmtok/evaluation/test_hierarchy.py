"""The tree as judge: distances by hand, several hypernyms, and codes that follow the tree against codes that do not."""

import numpy as np
import pytest

from mmtok.evaluation.hierarchy import Tree, judge

PARENTS = {
    "animal": ["thing"], "tool": ["thing"], "dog": ["animal"], "cat": ["animal"], "saw": ["tool"],
    "robot dog": ["dog", "tool"],
}  # fmt: skip


@pytest.fixture
def tree(tmp_path):
    rows = [f"{item},{above},kind\n" for item, several in PARENTS.items() for above in several]
    (tmp_path / "h.csv").write_text("item,hypernym,relation\n" + "".join(rows))
    return Tree.load(tmp_path / "h.csv")


@pytest.mark.parametrize(
    ("one", "other", "distance", "similarity"),
    [
        ("dog", "dog", 0, 1.0),
        ("dog", "cat", 2, 2 * 2 / 6),
        ("dog", "saw", 4, 2 / 6),
        ("dog", "thing", 2, 2 / 4),
        ("robot dog", "saw", 2, 2 * 2 / 6),  # over tool, the nearer of its two hypernyms
        ("robot dog", "cat", 3, 2 * 2 / 7),
    ],
)
def test_distances_are_those_counted_by_hand(tree, one, other, distance, similarity):
    for a, b in ((one, other), (other, one)):
        assert tree.meet(a, b) == (distance, pytest.approx(similarity))
    assert tree.depth("robot dog") == 3, "over tool, not over animal and dog"


def test_trees_of_different_roots_never_meet(tmp_path):
    (tmp_path / "h.csv").write_text("item,hypernym\na,one\nb,two\n")
    assert Tree.load(tmp_path / "h.csv").meet("a", "b") is None


@pytest.mark.parametrize(
    ("content", "said"),
    [("item,hypernym\n", "names no hypernym"), ("a,b\nc,d\n", "no table"), ("item,hypernym\na,b\nb,a\n", "circle")],
)
def test_what_is_no_tree_is_refused_by_name(tmp_path, content, said):
    (tmp_path / "h.csv").write_text(content)
    with pytest.raises(ValueError, match=said):
        Tree.load(tmp_path / "h.csv")
    with pytest.raises(ValueError, match="no table"):
        Tree.load(tmp_path / "absent.csv")


def test_codes_along_the_tree_come_nearer_with_each_level_and_shuffled_ones_do_not():
    parents = {f"{a}.{b}.{c}": [f"{a}.{b}"] for a in range(5) for b in range(5) for c in range(5)}
    parents |= {f"{a}.{b}": [f"{a}"] for a in range(5) for b in range(5)} | {f"{a}": ["root"] for a in range(5)}
    keys = [key for key in parents if key.count(".") == 2]
    ids = np.array([[int(part) for part in key.split(".")][:2] for key in keys])
    rows = judge(Tree(parents), keys, ids, pairs=2000)
    assert [row.prefix for row in rows] == [0, 1, 2]
    assert rows[2].distance == 2
    assert rows[0].distance > rows[1].distance + 1 > rows[2].distance + 2
    assert rows[0].wu_palmer < rows[1].wu_palmer < rows[2].wu_palmer
    shuffled = judge(Tree(parents), keys, np.random.default_rng(0).permutation(ids), pairs=2000)
    assert shuffled[2].distance == pytest.approx(rows[0].distance, abs=0.3)


def test_a_level_that_nobody_shares_has_no_row():
    parents = {"a": ["root"], "b": ["root"]}
    assert [row.prefix for row in judge(Tree(parents), ["a", "b"], np.array([[0], [1]]), pairs=9)] == [0]
