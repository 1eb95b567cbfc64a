"""Models that say what follows a history: by writing ids, by scoring all items, by popularity."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.corpus import Corpus, Trie
from mmtok.downstream.beam import search
from mmtok.downstream.histories import Histories
from mmtok.downstream.layers import ModelConfig, Reader
from mmtok.downstream.writer import Codes, Writer


class Recommender(Protocol):
    """What a table compares."""

    def answers(self, histories: Histories, count: int) -> Tensor:
        """(B, count) rows of the corpus, best first, -1 where it has no more."""


class HistoryReader(nn.Module):
    """Vectors of a history's items -> states; the body of SASRec (Kang and McAuley 2018, arXiv 1808.09781).

    In front of the items stands a token of the user, one of `users` by a hash of the name, as TIGER has it; with
    `users=1` a mere beginning.
    """

    def __init__(self, config: ModelConfig, length: int, users: int) -> None:
        super().__init__()
        self.users = nn.Embedding(users, config.width)
        nn.init.normal_(self.users.weight, std=0.02)
        self.reader = Reader(config, length + 1, causal=True)

    def forward(self, vectors: Tensor, histories: Histories) -> tuple[Tensor, Tensor]:
        """(B, T, W) -> states (B, T + 1, W), of which place t follows the first t items; valid (B, T + 1)."""
        there = histories.items >= 0
        first = self.users(histories.users % self.users.num_embeddings)[:, None]
        valid = F.pad(there, (1, 0), value=True)
        return self.reader(torch.cat([first, vectors * there[..., None]], 1), valid), valid


def last(states: Tensor, histories: Histories) -> Tensor:
    """(B, T + 1, W) -> (B, W), the state after a history's last item."""
    return states[torch.arange(len(states), device=states.device), histories.lengths()]


class Generative(nn.Module):
    """Items go in as the sum of their ids' embeddings and come out as ids: SASRec's body, TIGER's end."""

    ids: Tensor

    def __init__(self, corpus: Corpus, trie: Trie, config: ModelConfig, *, length: int, users: int, beams: int) -> None:
        super().__init__()
        self.trie, self.beams = trie, beams
        self.register_buffer("ids", torch.from_numpy(corpus.ids), persistent=False)
        self.codes = Codes(corpus.sizes, config.width)
        self.history = HistoryReader(config, length, users)
        self.writer = Writer(corpus.sizes, config)

    def read(self, histories: Histories) -> tuple[Tensor, Tensor]:
        """States and what of them is valid."""
        return self.history(self.codes(self.ids[histories.items.clamp(min=0)]).sum(-2), histories)

    def loss(self, pieces: Histories) -> Tensor:
        """Nats of an item, mean over all that follow others."""
        read = pieces._replace(items=pieces.items[:, :-1])
        wanted = pieces.items[:, 1:]
        states, valid = self.read(read)
        places = states.shape[1]
        causal = torch.ones(places, places, dtype=torch.bool, device=states.device).tril()
        seen = (valid[:, None] & causal)[:, 1:]
        ids = self.ids[wanted.clamp(min=0)].masked_fill((wanted < 0)[..., None], -1)
        return self.writer.nats(ids, states[:, 1:], states, seen).sum() / (wanted >= 0).sum()

    def written(self, histories: Histories, beams: int, *, free: bool = False) -> Tensor:
        """(B, beams, L) ids, best first."""
        states, valid = self.read(histories)
        context = last(states, histories)[:, None]

        def following(prefix: Tensor) -> Tensor:
            seen = valid[:, None].expand(-1, prefix.shape[1], -1)
            return self.writer.following(prefix, context, states, seen)

        return search(following, self.trie, len(states), beams, free=free).ids

    def answers(self, histories: Histories, count: int) -> Tensor:
        return self.trie.rows_of(self.trie.walk(self.written(histories, max(self.beams, count))))[:, :count]

    def freely_valid(self, histories: Histories, count: int) -> Tensor:
        """(B, count) bool: which of the likeliest ids, written without the trie, name an item."""
        return self.trie.walk(self.written(histories, count, free=True)) >= 0


class SASRec(nn.Module):
    """Self-attention over item embeddings, trained with a softmax over all items, whose weights they are, too.

    The published one has a binary loss against one sampled negative an item, which is what it is mostly quoted with and
    much weaker (Klenitskiy and Vasilev 2023, arXiv 2309.07602).
    """

    def __init__(self, items: int, config: ModelConfig, *, length: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, config.width)
        nn.init.normal_(self.items.weight, std=config.width**-0.5)
        self.history = HistoryReader(config, length, users=1)

    def read(self, histories: Histories) -> Tensor:
        return self.history(self.items(histories.items.clamp(min=0)), histories)[0]

    def loss(self, pieces: Histories) -> Tensor:
        """Nats of an item, mean over all that follow others."""
        wanted = pieces.items[:, 1:]
        states = self.read(pieces._replace(items=pieces.items[:, :-1]))[:, 1:]
        there = wanted >= 0
        return F.cross_entropy(states[there] @ self.items.weight.T, wanted[there])

    def answers(self, histories: Histories, count: int) -> Tensor:
        scores = last(self.read(histories), histories) @ self.items.weight.T
        return scores.topk(min(count, scores.shape[1])).indices


class Popularity:
    """The items that occur most in training, the same for everybody; a draw decides between equal ones."""

    def __init__(self, occurrences: Tensor, seed: int) -> None:
        draw = torch.rand(len(occurrences), generator=torch.Generator().manual_seed(seed))
        self.order = (occurrences + draw).argsort(descending=True)

    def answers(self, histories: Histories, count: int) -> Tensor:
        return self.order[:count].to(histories.items.device).expand(len(histories.items), -1)
