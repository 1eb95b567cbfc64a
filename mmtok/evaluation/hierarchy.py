"""A tree of what is a kind of what as judge of codes: are items that share a prefix near each other in it?"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmtok.corpus import Ids, groups
from mmtok.evaluation.vector_metrics import drawn_pairs

NORMAL = 1.96
"""Two-sided 95 % quantile of the normal distribution."""


class Meeting(NamedTuple):
    """Where two items come together."""

    distance: int
    """Steps from one to the other over the nearest thing that both are kinds of; 0 for an item and itself."""
    wu_palmer: float
    """2 D / (D1 + D2) of Wu and Palmer 1994: depth of that thing over the depths of both through it; 1 at the root."""


class Tree:
    """Items and what they are kinds of. One may be a kind of several things: every way up counts, the shortest wins.

    So is depth the shortest way to a root, and a distance one over any ancestor that both have.
    """

    def __init__(self, parents: Mapping[str, Sequence[str]]) -> None:
        """Take over a tree.

        Args:
            parents: item -> what it is a kind of; who is only named above stands there too, or is a root.
        """
        self.parents = parents
        self._above: dict[str, dict[str, int]] = {}

    @classmethod
    def load(cls, path: Path) -> Tree:
        """From a table with columns item and hypernym, as `mmtok shards build debian:wordnet` leaves it.

        Raises:
            ValueError: it cannot be read, lacks a column, or runs in a circle.
        """
        parents: dict[str, list[str]] = {}
        try:
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    parents.setdefault(row["item"], []).append(row["hypernym"])
        except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
            raise ValueError(f"{path} is no table of item,hypernym that can be read ({error}).") from error
        if not parents:
            raise ValueError(f"{path} names no hypernym.")
        tree = cls(parents)
        if (lost := next((item for item in parents if not tree.roots & tree.above(item).keys()), None)) is not None:
            raise ValueError(f"{path} runs in a circle: nothing above {lost} is without a hypernym.")
        return tree

    @cached_property
    def roots(self) -> set[str]:
        """What is a kind of nothing."""
        return {above for several in self.parents.values() for above in several} - self.parents.keys()

    def above(self, item: str) -> dict[str, int]:
        """The item and all that it is a kind of -> steps up to it, the fewest."""
        if item not in self._above:
            found, waiting = {item: 0}, deque([item])
            while waiting:
                one = waiting.popleft()
                for parent in self.parents.get(one, ()):
                    if parent not in found:
                        found[parent] = found[one] + 1
                        waiting.append(parent)
            self._above[item] = found
        return self._above[item]

    def depth(self, item: str) -> int:
        """Things on the shortest way to a root, both ends counted: 1 for a root."""
        above = self.above(item)
        return 1 + min(above[root] for root in self.roots & above.keys())

    def meet(self, one: str, other: str) -> Meeting | None:
        """Where two items come together; None in trees of different roots. Of ways of one length, over the deepest."""
        mine, theirs = self.above(one), self.above(other)
        common = mine.keys() & theirs.keys()
        if not common:
            return None
        depths = {item: self.depth(item) for item in common}
        at = min(common, key=lambda item: (mine[item] + theirs[item], -depths[item], item))
        distance = mine[at] + theirs[at]
        return Meeting(distance, 2 * depths[at] / (2 * depths[at] + distance))


class Row(NamedTuple):
    """Pairs of items that share their first `prefix` codes."""

    prefix: int
    distance: float
    """Mean number of steps between them."""
    wu_palmer: float
    """Mean similarity."""
    distance_half: float
    """Half the 95 % interval of the mean distance, over the pairs that were drawn; trainings differ besides."""
    wu_palmer_half: float
    """Of the mean similarity."""
    pairs: int
    items: int
    """Items that have company at this prefix; pairs are drawn of them."""


def judge(tree: Tree, keys: Sequence[str], ids: Ids, *, pairs: int = 20_000, seed: int = 0) -> list[Row]:
    """A row for each l = 0 .. L: pairs drawn of items that share their first l codes. l = 0 is any pair.

    Args:
        tree: the judge.
        keys: of the items.
        ids: (N, L) their codes.
        pairs: drawn for each row.
        seed: of the drawing.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for prefix in range(ids.shape[1] + 1):
        group = groups(ids[:, :prefix])
        one, other = drawn_pairs(group, pairs, rng)
        found = list(_meetings(tree, keys, one, other))
        if found:
            company = int((np.bincount(group)[group] > 1).sum())
            values = np.array(found, dtype=np.float64)
            (distance, similarity), halves = values.mean(0).tolist(), NORMAL * values.std(0) / np.sqrt(len(values))
            rows.append(Row(prefix, distance, similarity, float(halves[0]), float(halves[1]), len(found), company))
    return rows


def _meetings(tree: Tree, keys: Sequence[str], one: Ids, other: Ids) -> Iterable[Meeting]:
    for a, b in zip(one, other, strict=True):
        if (met := tree.meet(keys[a], keys[b])) is not None:
            yield met
