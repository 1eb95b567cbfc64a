"""A corpus: items and the codes that name them, one row an item, and the trie of the names that exist.

Two items may get the same codes. That is settled here, over all items at once, and not in `encode`, which sees one item
and must give the same codes whatever else there is. Semantic ids as TIGER has them (arXiv 2305.05065): the codes, then
one id of kind `disambiguation` where codes alone are no name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.grouping import Ids, groups
from mmtok.sinkhorn import reassign

PARQUET, TRIE = "item_to_codes.parquet", "trie.json"
Method = Literal["extra", "sinkhorn", "sinkhorn+extra", "none"]
Kind = Literal["code", "disambiguation"]


@dataclass(frozen=True)
class Corpus:
    """Items and their codes: one row an item."""

    keys: tuple[str, ...]
    """Of the items, each once."""
    ids: Ids
    """(N, L) int64, a disambiguation level last where there is one."""
    sizes: tuple[int, ...]
    """Ids of each level; level l uses 0 .. sizes[l] - 1."""
    kinds: tuple[str, ...]
    """What each level is: "code" or "disambiguation"."""
    fingerprint: str
    """Of the tokenizer that made the codes."""

    def __post_init__(self) -> None:
        count, levels = len(self.keys), len(self.sizes)
        if self.ids.shape != (count, levels) or len(self.kinds) != levels:
            raise ValueError(
                f"a corpus of {count} items on {levels} levels has ids of shape {(count, levels)} and as many kinds, "
                f"got {self.ids.shape} and {len(self.kinds)}."
            )
        if len(set(self.keys)) != count:
            twice = next(key for key, group in groupby(sorted(self.keys)) if len(list(group)) > 1)
            raise ValueError(
                f"the key {twice!r} stands for several items of the corpus. Give each item one of its own."
            )
        if count and not (self.ids.min(0) >= 0).all() & (self.ids.max(0) < np.array(self.sizes)).all():
            raise ValueError(
                f"ids of the corpus are outside its levels of {self.sizes}: they are of another tokenizer."
            )

    @classmethod
    def settle(
        cls,
        keys: Sequence[str],
        ids: Ids,
        sizes: Sequence[int],
        fingerprint: str,
        *,
        method: Method = "extra",
        extra_size: int = 256,
        costs: Callable[[Ids], NDArray[np.floating[Any]]] | None = None,
    ) -> Corpus:
        """Raw codes of all items -> a corpus whose collisions are dealt with.

        Args:
            keys: of the items.
            ids: (N, L) as the tokenizer gave them.
            sizes: ids of each level.
            fingerprint: of the tokenizer.
            method: "extra" adds a level that numbers the items of the same codes from 0, in the order of their keys, so
                that it is 0 where codes are a name already; "sinkhorn" moves colliding items to other codes of the last
                level, and leaves what it cannot part, as equal vectors; "none" leaves all as it is.
            extra_size: ids of the level that "extra" adds.
            costs: rows (n,) -> (n, K) squared distances of these items to what each code of the last level would make
                of them; for "sinkhorn".

        Raises:
            ValueError: more items share their codes than the extra level has ids, and what to do.
        """
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        kinds: tuple[str, ...] = ("code",) * ids.shape[1]
        if method not in get_args(Method):
            raise ValueError(f"collisions={method!r} is none of {', '.join(get_args(Method))}.")
        if "sinkhorn" in method:
            if costs is None:
                raise ValueError("collisions=sinkhorn needs distances to the codes of the last level. Use extra.")
            ids = reassign(ids, costs)
        if "extra" in method:
            ids = np.concatenate([ids, number(keys, ids, extra_size)[:, None]], 1)
            sizes, kinds = [*sizes, extra_size], (*kinds, "disambiguation")
        return cls(tuple(keys), ids, tuple(sizes), kinds, fingerprint)

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each key."""
        return {key: row for row, key in enumerate(self.keys)}

    def trie(self) -> Trie:
        """The prefixes that exist."""
        return Trie(self)

    def save(self, path: str | Path) -> Path:
        """Write a Parquet file, by a rename: columns `key`, `level_0` ... and the levels' meaning in its metadata.

        Raises:
            OSError: it cannot be written; what stood there before stands.
        """
        arrow = _arrow()
        import pyarrow.parquet

        path = Path(path)
        about = {"sizes": self.sizes, "kinds": self.kinds, "fingerprint": self.fingerprint, "format": "mmtok-corpus-1"}
        levels = {f"level_{i}": arrow.array(self.ids[:, i].astype(np.int32)) for i in range(len(self.sizes))}
        table = arrow.table({"key": arrow.array(self.keys, arrow.string()), **levels})
        draft = path.with_name(f"{path.name}.partial")
        try:
            pyarrow.parquet.write_table(table.replace_schema_metadata({"mmtok": json.dumps(about)}), draft)
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Corpus:
        """Read what `save` wrote: the file, or the folder it stands in.

        Raises:
            ValueError: it is no such file, and how to make one.
        """
        arrow = _arrow()
        import pyarrow.parquet

        path = Path(path)
        path = path / PARQUET if path.is_dir() else path
        how = "Write one: mmtok export RUN OUT --items SHARDS."
        try:
            table = pyarrow.parquet.read_table(path)
        except (OSError, arrow.ArrowException) as error:
            said = str(error).splitlines()[0]
            raise ValueError(f"{path} cannot be read as a corpus of codes: {said}. {how}") from error
        about = json.loads((table.schema.metadata or {}).get(b"mmtok", b"{}"))
        if about.get("format") != "mmtok-corpus-1":
            raise ValueError(f"{path} is a Parquet file, but no corpus of codes. {how}")
        columns = [table.column(f"level_{i}").to_numpy() for i in range(len(about["sizes"]))]
        ids = np.stack(columns, 1).astype(np.int64)
        keys = tuple(table.column("key").to_pylist())
        return cls(keys, ids, tuple(about["sizes"]), tuple(about["kinds"]), about["fingerprint"])


def number(keys: Sequence[str], ids: Ids, size: int) -> Ids:
    """(N,) the number of each item among those of its codes (N, L), from 0, by the order of their keys.

    Raises:
        ValueError: some codes have more than `size` items. A number that wrapped would name two items.
    """
    if not len(ids):
        return np.zeros(0, dtype=np.int64)
    group = groups(ids)
    largest = int(np.bincount(group).max())
    if largest > size:
        first = keys[int(np.flatnonzero(group == np.bincount(group).argmax())[0])]
        raise ValueError(
            f"{largest:,} items have the same codes (one is {first!r}), and the extra level has {size:,} ids. Remove "
            f"items that are equal, give the tokenizer more codes, or raise extra_size to {largest:,}."
        )
    order = np.lexsort((np.asarray(keys), group))
    ordered = group[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    lengths = np.diff(np.r_[starts, len(ordered)])
    out = np.empty(len(ids), dtype=np.int64)
    out[order] = np.arange(len(ids)) - np.repeat(starts, lengths)
    return out


class Trie:
    """The prefixes of a corpus' codes, for a beam search that only names what exists.

    A node of depth d is a number, 0 .. `counts[d]` - 1 in the order of its ids; -1 is no node. All walks are vectorised
    over any shape of nodes, on the device the trie was moved to.

    Attributes:
        sizes: ids of each level.
        counts: nodes of each depth 0 .. L.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.sizes, self.keys = corpus.sizes, corpus.keys
        self.edges: list[Tensor] = []
        group: Ids = np.zeros(len(corpus), dtype=np.int64)
        for level, size in enumerate(self.sizes):
            # Parent and id as one number; sorted, so that the children of a node stand together.
            edges, inverse = np.unique(group * size + corpus.ids[:, level], return_inverse=True)
            self.edges.append(torch.from_numpy(edges))
            group = inverse.astype(np.int64)
        self.counts = (1, *(len(edges) for edges in self.edges))
        order = np.argsort(group, kind="stable")
        self._rows = torch.from_numpy(order)
        self._first = torch.from_numpy(np.searchsorted(group[order], np.arange(self.counts[-1] + 1)))

    def to(self, device: torch.device | str) -> Trie:
        """The trie itself, with its tables on another device."""
        self.edges = [edges.to(device) for edges in self.edges]
        self._rows, self._first = self._rows.to(device), self._first.to(device)
        return self

    def step(self, nodes: Tensor, ids: Tensor, depth: int) -> Tensor:
        """Nodes of `depth` and the id that follows each, of equal shape -> nodes of depth + 1, -1 for none."""
        edges, size = self.edges[depth], self.sizes[depth]
        wanted = nodes * size + ids
        place = torch.searchsorted(edges, wanted).clamp(max=max(len(edges) - 1, 0))
        found = (nodes >= 0) & (ids >= 0) & (ids < size)
        return place.where(found & (edges[place] == wanted), -1) if len(edges) else torch.full_like(wanted, -1)

    def walk(self, prefixes: Tensor) -> Tensor:
        """(..., l) ids from the root -> (...) nodes of depth l."""
        nodes = torch.zeros(prefixes.shape[:-1], dtype=torch.int64, device=prefixes.device)
        for depth in range(prefixes.shape[-1]):
            nodes = self.step(nodes, prefixes[..., depth], depth)
        return nodes

    def allowed(self, nodes: Tensor, depth: int) -> Tensor:
        """(...) nodes of `depth` -> (..., sizes[depth]) bool, the ids that may follow; none after no node."""
        edges, size = self.edges[depth], self.sizes[depth]
        mask = torch.zeros(*nodes.shape, size, dtype=torch.bool, device=nodes.device)
        flat, rows = mask.view(-1, size), nodes.reshape(-1).contiguous()
        first = torch.searchsorted(edges, rows * size)
        count = (torch.searchsorted(edges, (rows + 1) * size) - first).where(rows >= 0, 0)
        which = torch.repeat_interleave(torch.arange(len(rows), device=rows.device), count)
        within = torch.arange(len(which), device=rows.device) - (count.cumsum(0) - count)[which]
        flat[which, edges[first[which] + within] % size] = True
        return mask

    def items(self, leaf: int) -> list[int]:
        """Rows of the corpus that a node of depth L names: one, or more where collisions were left."""
        if leaf < 0:
            return []
        return self._rows[int(self._first[leaf]) : int(self._first[leaf + 1])].tolist()

    def rows_of(self, leaves: Tensor) -> Tensor:
        """(...) nodes of depth L -> (...) the first row each names; -1 for no node."""
        if not len(self._rows):
            return torch.full_like(leaves, -1)
        return self._rows[self._first[leaves.clamp(min=0)]].where(leaves >= 0, -1)

    def nested(self) -> dict[str, Any]:
        """{"id": {"id": ... [keys]}}: what `trie.json` holds under "trie"."""
        below: list[Any] = [[self.keys[row] for row in self.items(leaf)] for leaf in range(self.counts[-1])]
        for depth in reversed(range(len(self.sizes))):
            above: list[dict[str, Any]] = [{} for _ in range(self.counts[depth])]
            for (parent, own), child in zip(_split(self.edges[depth], self.sizes[depth]), below, strict=True):
                above[parent][str(own)] = child
            below = above
        return below[0]

    def save(self, path: str | Path, corpus: Corpus) -> Path:
        """Write `trie.json`: the levels' meaning, and the trie with the keys of items at its leaves."""
        about = {"version": 1, "sizes": corpus.sizes, "kinds": corpus.kinds, "fingerprint": corpus.fingerprint}
        Path(path).write_text(json.dumps({**about, "trie": self.nested()}) + "\n", encoding="utf-8")
        return Path(path)


def _split(edges: Tensor, size: int) -> Iterator[tuple[int, int]]:
    for edge in edges.tolist():
        yield divmod(edge, size)


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ValueError("A corpus of codes is a Parquet file. Install: pip install 'mmtok[vector]'.") from error
    return pyarrow
