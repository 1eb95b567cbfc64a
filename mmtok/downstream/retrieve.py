"""The task `retrieve`: which item a query asks for, by an id that is written, beside BM25 and the cosine of TF-IDF.

The model learns from two kinds of pairs, as DSI does: queries of the training split with their items, and spans of
every item's own text with that item, without which it could not name what no training query asks for. Items that
training queries ask for and items they do not ask for are told apart: naming them are different feats.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.queries import Query
from mmtok.corpus import Corpus, Trie
from mmtok.downstream.docids import DocidWriter, hashed, rows_of
from mmtok.downstream.layers import ModelConfig
from mmtok.downstream.lexical import Lexical
from mmtok.downstream.metrics import mrr, places, recall
from mmtok.downstream.names import corpus_digest, dealt, drawn, only, require_names
from mmtok.downstream.results import Ledger, fill
from mmtok.downstream.training import Budget, Trained, best_of, require_floors, train

COUNT = 10
"""Items of an answer, and the cut of MRR."""
ANSWERED = 256
"""Queries that are answered at a time."""
SEMANTIC, RANDOM, TFIDF = "semantic docids", "random docids", "TF-IDF cosine"
BM25, EXPANDED = "BM25", "BM25 + queries"
ARMS = (SEMANTIC, RANDOM, BM25, EXPANDED, TFIDF)
ALIKE = (BM25, EXPANDED, TFIDF)
COLUMNS = {
    f"{name} {group}": "{:.4f}" for group in ("seen", "unseen") for name in ("recall@1", "recall@10", "mrr@10")
} | {
    "valid": "{:.1%}", "valid freely": "{:.1%}", "parameters": "{:,.0f}", "updates": "{:,.0f}", "CPU s": "{:.0f}",
    "ms a query": "{:.2f}",
}  # fmt: skip
DEFINITIONS = {
    "seen": "test queries whose item some training query asks for, too",
    "unseen": "test queries whose item no training query asks for; the model knows it by spans of its text alone",
    "recall@k": "share of queries whose item is among the first k of all items",
    "mrr@10": "mean of 1 / place, 0 beyond the tenth",
    "valid": "share of the places of answers that name an item; BM25 names none where no word is shared",
    "valid freely": "share of the ten likeliest ids that name an item, searched without the trie",
    "updates": "until the best validation",
    "CPU s": "of the process, for training and its validations, one run at the rate that was chosen",
    "ms a query": "of CPU, to answer",
}


@dataclass(frozen=True)
class RetrieveConfig(ModelConfig, Budget):
    """What `--ask NAME=VALUE` changes."""

    words: int = 32
    """Of a query or a span that are read, the first."""
    buckets: int = 32768
    """Numbers that words are hashed to."""
    spans: float = 0.5
    """Share of spans of items' texts in a batch; the rest are training queries."""
    shortest: int = 4
    """Words of a span at least."""
    beams: int = 20
    """Of the search."""
    items: int = 0
    """Items at most, drawn by a hash of their keys, and only their queries; 0 takes all."""
    validated: int = 1000
    """Queries that a validation asks at most."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        Budget.__post_init__(self)
        require_floors(self, words=1, buckets=1, shortest=1, beams=COUNT, items=0, validated=1)
        if not 0 < self.spans <= 1:
            raise ValueError(
                f"spans={self.spans} must be above 0 and at most 1: unseen items are known by spans alone."
            )
        if self.shortest > self.words:
            raise ValueError(f"shortest={self.shortest} must not exceed words={self.words}.")


class Asked(NamedTuple):
    """Queries of one split."""

    texts: tuple[str, ...]
    items: Tensor
    """(N,) rows of the corpus."""


class Prepared(NamedTuple):
    """A corpus, the text of every item, and who asks for what."""

    corpus: Corpus
    texts: tuple[str, ...]
    splits: dict[str, Asked]
    seen: Tensor
    """(N,) bool of test queries: whether a training query asks for the item, too."""
    facts: dict[str, Any]


def prepare(corpus: Corpus, texts: Mapping[str, str], queries: Sequence[Query], config: RetrieveConfig) -> Prepared:
    """Items that have ids and a text, and queries for them.

    Raises:
        ValueError: items share their ids, or too little is left.
    """
    require_names(corpus)
    chosen = [row for row, key in enumerate(corpus.keys) if texts.get(key, "").strip()]
    bare = len(corpus) - len(chosen)
    if 0 < config.items < len(chosen):
        chosen = sorted(sorted(chosen, key=lambda row: drawn(corpus.keys[row]))[: config.items])
    own = only(corpus, chosen)
    rows = own.rows
    splits = {}
    for split in ("train", "val", "test"):
        held = [(one.text, rows[one.item]) for one in queries if one.split == split and one.item in rows]
        held.sort(key=lambda pair: drawn(pair[0]))  # so that the first so many are a fair sample
        splits[split] = Asked(
            tuple(text for text, _ in held), torch.tensor([row for _, row in held], dtype=torch.int64)
        )  # fmt: skip
    if lacking := [name for name, asked in splits.items() if not asked.texts]:
        raise ValueError(
            f"no query of the splits {', '.join(lacking)} asks for one of the {len(own):,} items that have ids and a "
            f"text ({bare:,} have no text). Are the queries of these items?"
        )
    seen = torch.isin(splits["test"].items, splits["train"].items)
    facts = {
        "items": len(own),
        "items_without_text": bare,
        "queries": {name: len(asked.texts) for name, asked in splits.items()},
        "test_of_seen_items": int(seen.sum()),
        "queries_without_item": sum(one.item not in rows for one in queries),
        "levels": list(own.sizes),
        "definitions": DEFINITIONS,
    }
    return Prepared(own, tuple(texts[key] for key in own.keys), splits, seen, facts)


def retrieve(
    prepared: Prepared,
    config: RetrieveConfig,
    ledger: Ledger,
    seeds: int,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> None:
    """Measure every arm with every seed that the ledger lacks."""
    ledger.facts = prepared.facts

    def measure(arm: str, seed: int, rate: float | None) -> dict[str, Any]:
        test = prepared.splits["test"]
        if arm in ALIKE:
            texts = expanded(prepared) if arm == EXPANDED else prepared.texts
            index = Lexical(texts, "tfidf" if arm == TFIDF else "bm25")
            began = time.process_time()
            answers = index.answers(test.texts, COUNT)
            return {"figures": _figures(prepared, answers, time.process_time() - began)}
        with torch.random.fork_rng():
            chosen = config if rate is None else replace(config, rates=(rate,))
            model, trained = _trained(prepared, chosen, arm, seed, device)
        began = time.process_time()
        answers = answer(model, test.texts, config, device)
        figures = _figures(prepared, answers, time.process_time() - began)
        figures["valid freely"] = _freely(model, test.texts[:1000], config, device)
        return {"figures": figures} | trained.told(figures)

    fill(ledger, ARMS, seeds, measure, alike=ALIKE, say=say)


def expanded(prepared: Prepared) -> list[str]:
    """The texts with the training queries of their items behind them: what the model learns of, BM25 may read."""
    texts = list(prepared.texts)
    for text, row in zip(prepared.splits["train"].texts, prepared.splits["train"].items.tolist(), strict=True):
        texts[row] += "\n" + text
    return texts


def _figures(prepared: Prepared, answers: Tensor, seconds: float) -> dict[str, float]:
    place = places(answers, prepared.splits["test"].items)
    figures: dict[str, float] = {}
    for group, rows in (("seen", prepared.seen), ("unseen", ~prepared.seen)):
        if rows.any():
            figures |= {f"recall@{k} {group}": recall(place[rows], k) for k in (1, 10)}
            figures[f"mrr@10 {group}"] = mrr(place[rows], COUNT)
    return figures | {"valid": float((answers >= 0).double().mean()), "ms a query": 1000 * seconds / len(place)}


def _trained(
    prepared: Prepared, config: RetrieveConfig, arm: str, seed: int, device: str
) -> tuple[DocidWriter, Trained]:
    corpus = dealt(prepared.corpus, seed) if arm == RANDOM else prepared.corpus
    validation = prepared.splits["val"]
    wanted = validation.items[: config.validated]

    def one(rate: float) -> tuple[DocidWriter, Trained]:
        torch.manual_seed(seed)
        model = DocidWriter(
            corpus, Trie(corpus).to(device), config,
            buckets=config.buckets, length=config.words, beams=config.beams,
        ).to(device)  # fmt: skip

        def losses() -> Iterator[Tensor]:
            for queries, items in pairs(prepared, config, seed):
                yield model.loss(queries.to(device), items.to(device))

        def validate() -> float:
            answers = answer(model, validation.texts[: config.validated], config, device)
            return mrr(places(answers, wanted), COUNT)

        return model, train(model, losses, validate, config, rate)

    return best_of(config.rates, one)


def pairs(prepared: Prepared, config: RetrieveConfig, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of words (B, S) and rows of items (B,): spans of texts, then training queries."""
    draw = np.random.default_rng(seed)
    texts = [hashed(text, config.buckets) for text in prepared.texts]
    asked = prepared.splits["train"]
    queries = [hashed(text, config.buckets) for text in asked.texts]
    spans = max(1, round(config.batch * config.spans))
    with_words = np.array([row for row, text in enumerate(texts) if text])
    while True:
        items = draw.choice(with_words, spans)
        some = draw.integers(len(queries), size=config.batch - spans)
        taken = [_span(texts[item], config, draw) for item in items] + [queries[one] for one in some]
        yield rows_of(taken, config.words), torch.cat([torch.from_numpy(items), asked.items[some]])


def _span(text: list[int], config: RetrieveConfig, draw: np.random.Generator) -> list[int]:
    """Some words in a row, as many as a query may have."""
    length = int(draw.integers(config.shortest, config.words + 1))
    start = int(draw.integers(max(len(text) - length, 0) + 1))
    return text[start : start + length]


@torch.no_grad()
def answer(model: DocidWriter, texts: Sequence[str], config: RetrieveConfig, device: str) -> Tensor:
    """(N, COUNT) rows of the corpus on the CPU."""
    return torch.cat([model.answers(part.to(device), COUNT).cpu() for part in _parts(texts, config)])


@torch.no_grad()
def _freely(model: DocidWriter, texts: Sequence[str], config: RetrieveConfig, device: str) -> float:
    found = [model.freely_valid(part.to(device), COUNT).flatten() for part in _parts(texts, config)]
    return float(torch.cat(found).double().mean())


def _parts(texts: Sequence[str], config: RetrieveConfig) -> Iterator[Tensor]:
    for start in range(0, len(texts), ANSWERED):
        yield rows_of([hashed(text, config.buckets) for text in texts[start : start + ANSWERED]], config.words)


def settings(
    config: RetrieveConfig, corpus: Corpus, texts: Mapping[str, str], queries: Sequence[Query]
) -> dict[str, Any]:
    """Everything that would change a figure, for the ledger."""
    digest = hashlib.sha256(repr((sorted(texts.items()), [tuple(one) for one in queries])).encode()).hexdigest()
    return asdict(config) | {"corpus": corpus_digest(corpus), "texts_and_queries": digest}
