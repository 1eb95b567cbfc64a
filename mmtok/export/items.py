"""Items of a shard set -> the corpus of their codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from datamodules.shards import ShardSet
from datamodules.vectoritem import Item, read_items, width_of
from mmtok.corpus import Corpus, Method
from mmtok.grouping import Ids
from mmtok.schema import ConfigError
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.vector import VectorTokenizer

BATCH = 1024
LARGEST_LEVEL = 1 << 14
"""Codes of a last level that items are spread over: the transport is a matrix of items by codes."""
Say = Callable[[str], None]


def code_items(
    tokenizer: Tokenizer, shards: str, *, method: Method = "extra", extra_size: int = 256, say: Say = lambda line: None
) -> Corpus:
    """Code every vector of a set, in the order of its shards, and settle what collides.

    Args:
        tokenizer: of vectors, whole or without its decoder.
        shards: a folder or an address of a set, or several with commas between (`train,val` of one corpus).
        method: what is done about collisions (`Corpus.settle`).
        extra_size: ids of the level that "extra" adds.
        say: called with a line for people.

    Raises:
        ValueError: the tokenizer is of something else, a vector cannot be used, or collisions cannot be settled.
    """
    if not isinstance(tokenizer, VectorTokenizer):
        raise ValueError(f"--items codes vectors, and this tokenizer is of '{tokenizer.spec.modality}'. Leave it out.")
    if "sinkhorn" in method and (size := tokenizer.spec.codebook_sizes[-1]) > LARGEST_LEVEL:
        raise ValueError(
            f"--collisions {method} spreads items over the last level's codes, {LARGEST_LEVEL:,} at most, and it has "
            f"{size:,}. Use --collisions extra."
        )
    keys: list[str] = []
    ids: list[Tensor] = []
    rows: list[Tensor] = []
    for names, x in _batches(shards, tokenizer.config.width):
        keys += names
        ids.append(tokenizer.encode(x).ids[..., 0])
        if "sinkhorn" in method:
            rows.append(x)
    if not keys:
        raise ValueError(f"{shards} holds no items.")
    raw = torch.cat(ids).numpy()
    costs = _costs(tokenizer, torch.cat(rows), raw) if rows else None
    sizes = tokenizer.spec.codebook_sizes
    made = Corpus.settle(keys, raw, sizes, tokenizer.fingerprint(), method=method, extra_size=extra_size, costs=costs)
    before, after = (len(raw) - len(np.unique(one, axis=0)) for one in (raw, made.ids))
    say(f"{len(keys):,} items: {before:,} of them had the codes of another; {after:,} have still (collisions={method})")
    return made


def _costs(tokenizer: VectorTokenizer, x: Tensor, ids: Ids) -> Callable[[Ids], np.ndarray]:
    def costs(rows: Ids) -> np.ndarray:
        size = tokenizer.spec.codebook_sizes[-1]
        chosen = torch.from_numpy(rows).split(max(1, (1 << 20) // size))
        return torch.cat([tokenizer.last_costs(x[part], torch.from_numpy(ids)[part]) for part in chosen]).numpy()

    return costs


def _batches(shards: str, width: int) -> Iterator[tuple[list[str], Tensor]]:
    items = _items(shards, width)
    while batch := list(islice(items, BATCH)):
        yield [item.key for item in batch], torch.from_numpy(np.stack([item.vector for item in batch]))


def _items(shards: str, width: int) -> Iterator[Item]:
    for home in shards.split(","):
        source = ShardSet.open(home)
        if "npy" not in {name.rpartition(".")[2] for name in source.manifest.extensions}:
            raise ConfigError(f"{home} holds {', '.join(source.manifest.extensions)}, and items are vectors (npy).")
        if (found := width_of(source)) != width:
            raise ConfigError(f"{home} holds vectors of {found} numbers, and the tokenizer takes {width}.")
        yield from read_items(source)
