"""The task `retrieve` of `mmtok evaluate`: which item a query asks for, by an id that is written, beside BM25."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmtok.cli import downstream

OPTIONS: dict[str, dict[str, Any]] = {
    **downstream.OPTIONS,
    "--queries": {"type": Path, "metavar": "FILE", "help": "CSV of query, item and split (train, val, test)"},
}


def run(args: argparse.Namespace) -> int:
    from datamodules.queries import read_queries
    from mmtok.downstream.results import Ledger, table
    from mmtok.downstream.retrieve import ARMS, COLUMNS, RetrieveConfig, prepare, retrieve, settings

    if args.queries is None:
        raise ValueError("--task retrieve needs queries and what they ask for: --queries FILE.")
    if args.items is None:
        raise ValueError("--task retrieve needs the texts of the items: --items SET.")
    config = downstream.settings_of(args.ask, RetrieveConfig, "retrieve")
    corpus, folder = downstream.corpus_of(args)
    queries = read_queries(args.queries)
    texts = texts_of(args.items)
    target, device = downstream.begin(args, folder, f"retrieve-{args.queries.name.partition('.')[0]}")
    prepared = prepare(corpus, texts, queries, config)
    facts = prepared.facts
    asked = facts["queries"]
    print(
        f"{facts['items']:,} items with ids and a text; queries: {asked['train']:,} to train on, {asked['val']:,} to "
        f"validate, {asked['test']:,} to test, {facts['test_of_seen_items']:,} of these for items seen in training"
    )
    if facts["queries_without_item"]:
        print(f"{facts['queries_without_item']:,} queries ask for other items and are left out")
    ledger = Ledger(target, "retrieve", settings(config, corpus, texts, queries))
    retrieve(prepared, config, ledger, args.seeds, device=device, say=lambda line: print(line, flush=True))
    print(table(ledger, COLUMNS, ARMS))
    print(f"wrote {target}")
    return 0


def texts_of(items: str) -> dict[str, str]:
    """Key -> text of every item of a set of vectors, or of several with commas between.

    Raises:
        ValueError: none has a text.
    """
    from datamodules.shards import ShardSet
    from datamodules.vectoritem import read_items

    texts = {item.key: item.text for path in items.split(",") for item in read_items(ShardSet.open(path), text=True)}
    if not any(texts.values()):
        raise ValueError(f"{items}: no texts beside the vectors. Build the set from texts: mmtok shards build.")
    return texts
