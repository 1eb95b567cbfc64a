"""Beam search over the names that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.corpus import Trie


class Beams(NamedTuple):
    """Best first."""

    ids: Tensor
    """(B, K, L)."""
    scores: Tensor
    """(B, K) log-probabilities, -inf where there are fewer names than beams."""


def search(following: Callable[[Tensor], Tensor], trie: Trie, batch: int, beams: int, *, free: bool = False) -> Beams:
    """The likeliest names under a model, as far as `beams` prefixes a level find them.

    A name's score is its probability under the model, as it is: what the trie rules out takes its share with it, so
    that scores are those of a search through all names one by one.

    Args:
        following: (B, k, l) prefixes -> (B, k, sizes[l]) log-probabilities.
        trie: of the names.
        batch: B.
        beams: K.
        free: whether any ids may be written, also those that name nothing.
    """
    nodes = torch.zeros(batch, 1, dtype=torch.int64, device=trie.edges[0].device)
    scores, prefix = nodes.float(), nodes[..., None][..., :0]
    for depth, size in enumerate(trie.sizes):
        total = scores[..., None] + following(prefix)
        if not free:
            total = total.masked_fill(~trie.allowed(nodes, depth), -torch.inf)
        scores, places = total.flatten(1).topk(min(beams, total[0].numel()))
        parents, ids = places // size, places % size
        prefix = torch.cat([prefix.gather(1, parents[..., None].expand(-1, -1, depth)), ids[..., None]], -1)
        # What was ruled out may still fill a beam where there is nothing better. It leads nowhere: node -1.
        nodes = trie.step(nodes.gather(1, parents), ids, depth)
    return Beams(prefix, scores)
