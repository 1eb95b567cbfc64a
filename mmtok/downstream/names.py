"""What is asked of a corpus whose ids a model writes, and the same ids without meaning."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmtok.corpus import Corpus


def require_names(corpus: Corpus) -> None:
    """Refuse ids that name several items: an answer would not say which.

    Raises:
        ValueError: there are some, and what to do.
    """
    shared = len(corpus) - len(np.unique(corpus.ids, axis=0))
    if shared:
        raise ValueError(
            f"{shared:,} items of the corpus have the ids of another. Export them with a level that "
            "tells them apart: mmtok export RUN OUT --items SHARDS --collisions extra."
        )


def only(corpus: Corpus, rows: Sequence[int]) -> Corpus:
    """Some items of a corpus, with the ids they have."""
    return replace(corpus, keys=tuple(corpus.keys[row] for row in rows), ids=corpus.ids[rows])


def dealt(corpus: Corpus, seed: int) -> Corpus:
    """The same ids, dealt out to the items at random: as many, as long, and without meaning."""
    order = np.random.default_rng(seed).permutation(len(corpus))
    return replace(corpus, ids=corpus.ids[order])


def corpus_digest(corpus: Corpus) -> str:
    """Of the items and their ids."""
    return hashlib.sha256(repr((corpus.keys, corpus.sizes)).encode() + corpus.ids.tobytes()).hexdigest()


def drawn(name: str) -> bytes:
    """Where a name stands in a draw that neither files nor seeds change."""
    return hashlib.sha256(name.encode()).digest()
