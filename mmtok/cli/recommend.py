"""The task `recommend` of `mmtok evaluate`: what follows a user's items, by ids of items, beside plain baselines."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmtok.cli import downstream

OPTIONS: dict[str, dict[str, Any]] = {
    **downstream.OPTIONS,
    "--interactions": {
        "type": Path,
        "metavar": "FILE",
        "help": "who took what: reviews_*_5.json[.gz], ratings.dat, ratings.csv, u.data, or user,item,time",
    },
}


def run(args: argparse.Namespace) -> int:
    from datamodules.interactions import read_interactions
    from mmtok.downstream.recommend import ARMS, COLUMNS, RecommendConfig, prepare, recommend, settings
    from mmtok.downstream.results import Ledger, table

    if args.interactions is None:
        raise ValueError("--task recommend needs to know who took what: --interactions FILE.")
    config = downstream.settings_of(args.ask, RecommendConfig, "recommend")
    corpus, folder = downstream.corpus_of(args)
    data = read_interactions(args.interactions)
    target, device = downstream.begin(args, folder, f"recommend-{args.interactions.name.partition('.')[0]}")
    prepared = prepare(corpus, data, config)
    facts = prepared.facts
    lost = facts["items_without_ids"]
    print(
        f"{facts['users']:,} of {facts['of_users']:,} users, {facts['interactions']:,} interactions with "
        f"{facts['items']:,} of {facts['of_items']:,} items; ids of {' x '.join(map(str, facts['levels']))}"
    )
    print(f"{facts['new_targets']:.1%} of the items that the test wants never occur in training")
    if lost["count"]:
        print(f"{lost['count']:,} items have no ids and are left out: {', '.join(lost['first'][:3])} ...")
    ledger = Ledger(target, "recommend", settings(config, corpus, data))
    recommend(prepared, config, ledger, args.seeds, device=device, say=lambda line: print(line, flush=True))
    print(table(ledger, COLUMNS, ARMS))
    print(f"wrote {target}")
    return 0
