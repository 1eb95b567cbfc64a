"""The task `recommend`: what follows a user's items, by semantic ids, beside the baselines that papers leave weak.

Four arms in one run, with the same users, histories and budget: the corpus' ids; the same ids dealt out to the items
at random; SASRec with a softmax over all items; popularity. The first three have the same body. Leave-last-out, ranked
among all items. A generative model that beats a badly trained SASRec shows nothing, and most published ones do.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from datamodules.interactions import SHORTEST, Interactions
from mmtok.corpus import Corpus, Trie
from mmtok.downstream.histories import Asked, Split, batches, leave_last_out
from mmtok.downstream.layers import ModelConfig
from mmtok.downstream.metrics import ndcg, places, recall, strike
from mmtok.downstream.names import corpus_digest, dealt, drawn, only, require_names
from mmtok.downstream.recommenders import Generative, Popularity, Recommender, SASRec
from mmtok.downstream.results import Ledger, fill
from mmtok.downstream.training import Budget, Trained, best_of, require_floors, train

COUNT = 10
"""Items of an answer."""
ANSWERED = 256
"""Histories that are answered at a time."""
SEMANTIC, RANDOM, SASREC, POPULARITY = "semantic ids", "random ids", "SASRec", "popularity"
ARMS = (SEMANTIC, RANDOM, SASREC, POPULARITY)
COLUMNS = {
    "recall@5": "{:.4f}", "ndcg@5": "{:.4f}", "recall@10": "{:.4f}", "ndcg@10": "{:.4f}",
    "recall@10 known": "{:.4f}", "recall@10 new": "{:.4f}", "valid": "{:.1%}", "valid freely": "{:.1%}",
    "parameters": "{:,.0f}", "updates": "{:,.0f}", "CPU s": "{:.0f}", "ms a user": "{:.2f}",
}  # fmt: skip
DEFINITIONS = {
    "recall@k": "share of users whose last item is among the first k of all items",
    "ndcg@k": "mean of 1 / log2(place + 1), places from 1, 0 beyond k; one item is wanted",
    "known": "of users whose last item occurs in training; 'new': of those whose last item never does",
    "valid": "share of the places of answers that name an item the user may be told",
    "valid freely": "share of the ten likeliest ids that name an item, searched without the trie",
    "updates": "until the best validation",
    "CPU s": "of the process, for training and its validations, one run at the rate that was chosen",
    "ms a user": "of CPU, to answer",
}


@dataclass(frozen=True)
class RecommendConfig(ModelConfig, Budget):
    """What `--ask NAME=VALUE` changes."""

    history: int = 20
    """Items of a history, the latest."""
    user_tokens: int = 2000
    """Tokens of users that the generative arms have, by a hash of the name, as TIGER; 1 has none."""
    beams: int = 30
    """Of the search: so many that ten answers are left when all of a history is struck out."""
    users: int = 0
    """Users at most, drawn by a hash of their names; 0 takes all."""
    core: int = 0
    """Users and items of fewer interactions are left out, again and again; 0 keeps all."""
    validated: int = 1000
    """Users that a validation asks at most."""

    def __post_init__(self) -> None:
        ModelConfig.__post_init__(self)
        Budget.__post_init__(self)
        require_floors(self, history=1, user_tokens=1, beams=COUNT, users=0, core=0, validated=1)


class Prepared(NamedTuple):
    """A corpus and who took what of it."""

    corpus: Corpus
    """The items that anybody took: what an answer is chosen from."""
    split: Split
    facts: dict[str, Any]


def prepare(corpus: Corpus, data: Interactions, config: RecommendConfig) -> Prepared:
    """Interactions with items that have ids, of users who have enough of them.

    Raises:
        ValueError: items share their ids, or too little is left.
    """
    require_names(corpus)
    unknown = sorted(data.items() - set(corpus.keys))
    kept = data.without(set(unknown)).core(config.core).at_least(SHORTEST)
    if len(kept.users) < 2:
        raise ValueError(
            f"{len(kept.users)} users have {SHORTEST} items or more with ids; of {len(data.items()):,} items "
            f"{len(unknown):,} have none{', as ' + unknown[0] if unknown else ''}. Are they of this corpus?"
        )
    occurring = kept.items()
    own = only(corpus, [row for row, key in enumerate(corpus.keys) if key in occurring])
    # By a hash of their names, so that the first so many are a fair sample, whatever the order of the file.
    order = sorted(range(len(kept.users)), key=lambda i: drawn(kept.users[i]))[: config.users or None]
    kept = Interactions(tuple(kept.users[i] for i in order), tuple(kept.sequences[i] for i in order))
    facts = {
        "users": len(kept.users),
        "of_users": len(data.users),
        "interactions": len(kept),
        "mean_length": len(kept) / len(kept.users),
        "items": len(own),
        "of_items": len(corpus),
        "items_without_ids": {"count": len(unknown), "first": unknown[:20]},
        "levels": list(own.sizes),
        "definitions": DEFINITIONS,
    }
    split = leave_last_out(kept, own.rows, config.history)
    facts["new_targets"] = float((split.occurrences[split.test.wanted] == 0).double().mean())
    facts["seen_items"] = "may be answered: some users have items twice" if split.repeats else "are struck out"
    return Prepared(own, split, facts)


def recommend(
    prepared: Prepared,
    config: RecommendConfig,
    ledger: Ledger,
    seeds: int,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> None:
    """Measure every arm with every seed that the ledger lacks."""
    ledger.facts = prepared.facts

    def measure(arm: str, seed: int, rate: float | None) -> dict[str, Any]:
        chosen = config if rate is None else replace(config, rates=(rate,))
        return _measure(prepared, chosen, arm, seed, device)

    fill(ledger, ARMS, seeds, measure, say=say)


def _measure(prepared: Prepared, config: RecommendConfig, arm: str, seed: int, device: str) -> dict[str, Any]:
    with torch.random.fork_rng():
        model, trained = _trained(prepared, config, arm, seed, device)
        began = time.process_time()
        answers, wanted = answer(model, prepared.split.test, prepared.split.repeats, device)
        seconds = time.process_time() - began
    place = places(answers, wanted)
    figures = {f"{name}@{k}": of(place, k) for k in (5, 10) for name, of in (("recall", recall), ("ndcg", ndcg))}
    known = prepared.split.occurrences[wanted] > 0
    figures |= {f"recall@10 {name}": recall(place[rows], 10) for name, rows in _groups(known)}
    figures |= {"valid": float((answers >= 0).double().mean()), "ms a user": 1000 * seconds / len(wanted)}
    if isinstance(model, Generative):
        figures["valid freely"] = _freely(model, prepared.split.test.first(1000), device)
    return {"figures": figures} | ({} if trained is None else trained.told(figures))


def _groups(known: Tensor) -> list[tuple[str, Tensor]]:
    """Names and rows of the groups that have any."""
    return [(name, rows) for name, rows in (("known", known), ("new", ~known)) if rows.any()]


def _trained(
    prepared: Prepared, config: RecommendConfig, arm: str, seed: int, device: str
) -> tuple[Recommender, Trained | None]:
    split = prepared.split
    if arm == POPULARITY:
        return Popularity(split.occurrences, seed), None
    if not len(split.train.users):
        raise ValueError("no user has the four items that training needs. Lower core, or take more users.")

    def one(rate: float) -> tuple[Generative | SASRec, Trained]:
        torch.manual_seed(seed)
        model = _build(prepared.corpus, config, arm, seed, device).to(device)
        asked = split.validation.first(config.validated)

        def losses() -> Iterator[Tensor]:
            order = torch.Generator().manual_seed(seed)
            for rows in batches(split.train.lengths(), config.batch, order):
                yield model.loss(split.train.of(rows).to(device))

        def validate() -> float:
            return ndcg(places(*answer(model, asked, split.repeats, device)), COUNT)

        return model, train(model, losses, validate, config, rate)

    return best_of(config.rates, one)


def _build(corpus: Corpus, config: RecommendConfig, arm: str, seed: int, device: str) -> Generative | SASRec:
    if arm == SASREC:
        return SASRec(len(corpus), config, length=config.history)
    named = dealt(corpus, seed) if arm == RANDOM else corpus
    return Generative(
        named, Trie(named).to(device), config, length=config.history, users=config.user_tokens, beams=config.beams
    )  # fmt: skip


@torch.no_grad()
def answer(model: Recommender, asked: Asked, repeats: bool, device: str) -> tuple[Tensor, Tensor]:
    """Answers (N, COUNT) on the CPU, and what was wanted (N,), in the same order.

    Args:
        model: in eval mode where it has one.
        asked: histories and what followed.
        repeats: whether an item of the history may be an answer; otherwise it is struck out, of every arm's alike.
        device: where to compute.
    """
    found, wanted = [], []
    for histories, follows in asked.batches(ANSWERED):
        here = histories.to(device)
        rows = model.answers(here, COUNT if repeats else COUNT + here.items.shape[1])
        found.append((rows if repeats else strike(rows, here.items))[:, :COUNT].cpu())
        wanted.append(follows)
    return torch.cat(found), torch.cat(wanted)


@torch.no_grad()
def _freely(model: Generative, asked: Asked, device: str) -> float:
    parts = [model.freely_valid(histories.to(device), COUNT).flatten() for histories, _ in asked.batches(ANSWERED)]
    return float(torch.cat(parts).double().mean())


def settings(config: RecommendConfig, corpus: Corpus, data: Interactions) -> dict[str, Any]:
    """Everything that would change a figure, for the ledger."""
    digest = hashlib.sha256(repr((data.users, data.sequences)).encode()).hexdigest()
    return asdict(config) | {"corpus": corpus_digest(corpus), "interactions": digest}
