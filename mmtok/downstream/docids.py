"""A model that reads a query and writes the id of the item it asks for (DSI, Tay et al. 2022, arXiv 2202.06991)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.corpus import Corpus, Trie
from mmtok.downstream.beam import search
from mmtok.downstream.layers import ModelConfig, Reader
from mmtok.downstream.lexical import words
from mmtok.downstream.writer import Writer


def hashed(text: str, buckets: int) -> list[int]:
    """The words of a text as numbers 1 .. buckets. Words that share one are taken for the same."""
    return [zlib.crc32(word.encode()) % buckets + 1 for word in words(text)]


def rows_of(texts: Sequence[Sequence[int]], length: int) -> Tensor:
    """The first words of each, (N, S) int64 with S at most `length`; 0 behind each."""
    longest = min(length, max(map(len, texts), default=0))
    out = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        own = list(text[:longest])
        out[row, : len(own)] = torch.tensor(own, dtype=torch.int64)
    return out


class DocidWriter(nn.Module):
    """Words in, ids out: an encoder that sees all words, and the writer of ids."""

    ids: Tensor

    def __init__(
        self, corpus: Corpus, trie: Trie, config: ModelConfig, *, buckets: int, length: int, beams: int
    ) -> None:
        super().__init__()
        self.trie, self.beams = trie, beams
        self.register_buffer("ids", torch.from_numpy(corpus.ids), persistent=False)
        self.words = nn.Embedding(buckets + 1, config.width)
        nn.init.normal_(self.words.weight, std=config.width**-0.5)
        self.start = nn.Parameter(torch.zeros(config.width))
        self.reader = Reader(config, length + 1, causal=False)
        self.writer = Writer(corpus.sizes, config)

    def read(self, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S) words -> states (B, S + 1, W), what of them is valid, and their mean (B, 1, W)."""
        valid = F.pad(queries > 0, (1, 0), value=True)
        start = self.start.expand(len(queries), 1, -1)
        states = self.reader(torch.cat([start, self.words(queries)], 1), valid)
        weights = valid[..., None].to(states.dtype)
        return states, valid, ((states * weights).sum(1) / weights.sum(1))[:, None]

    def loss(self, queries: Tensor, items: Tensor) -> Tensor:
        """Nats of an item (B,), mean."""
        states, valid, context = self.read(queries)
        return self.writer.nats(self.ids[items][:, None], context, states, valid[:, None]).mean()

    def written(self, queries: Tensor, beams: int, *, free: bool = False) -> Tensor:
        """(B, beams, L) ids, best first."""
        states, valid, context = self.read(queries)

        def following(prefix: Tensor) -> Tensor:
            return self.writer.following(prefix, context, states, valid[:, None].expand(-1, prefix.shape[1], -1))

        return search(following, self.trie, len(queries), beams, free=free).ids

    def answers(self, queries: Tensor, count: int) -> Tensor:
        """(B, count) rows of the corpus, best first, -1 where there are no more."""
        return self.trie.rows_of(self.trie.walk(self.written(queries, max(self.beams, count))))[:, :count]

    def freely_valid(self, queries: Tensor, count: int) -> Tensor:
        """(B, count) bool: which of the likeliest ids, written without the trie, name an item."""
        return self.trie.walk(self.written(queries, count, free=True)) >= 0
