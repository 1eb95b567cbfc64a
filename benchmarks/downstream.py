"""What semantic ids of packages are good for: what a package depends on next, and which package a synopsis means.

  python -m benchmarks.downstream runs/packages/item_to_codes.parquet --packages data/packages --out runs/downstream

Prints the tables of `mmtok evaluate --task recommend` and `--task retrieve` on the Debian packages that
`mmtok shards build debian:packages` wrote, at a size that three seeds fit into some minutes of a core. Figures are kept
arm by arm: the same command goes on where it was stopped.

Names of packages are queries, too: of every package whose synopsis is asked in training, and of every second one of the
others. So synopses of the test are of two kinds, alike but for that: of packages that some training query asked for, by
its name, and of packages that none did.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import sys
from pathlib import Path

from datamodules.queries import HEADER, Query, read_queries
from mmtok.cli import main as mmtok

COMMON = ("validated=400", "every=50", "patience=3")
RECOMMEND = (*COMMON, "updates=250", "rates=[1e-2]", "users=4000")
RETRIEVE = (*COMMON, "updates=250", "rates=[5e-3]", "items=3000", "buckets=16384")


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a tokenizer of the packages' vectors, or its item_to_codes.parquet")
    parser.add_argument("--packages", type=Path, required=True, help="what `mmtok shards build debian:packages` wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("recommend", "retrieve"), help="one of the two tables")
    args = parser.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    queries = args.out / "queries.csv"
    write(with_names(read_queries(args.packages / "queries.csv")), queries)
    items = [f"--items={args.packages / 'train'},{args.packages / 'val'}", "--extra-size=1024"]
    tasks = {
        "recommend": ([f"--interactions={args.packages / 'interactions.csv'}"], RECOMMEND),
        "retrieve": ([f"--queries={queries}"], RETRIEVE),
    }
    for task, (own, settings) in tasks.items():
        if args.only in (None, task):
            asked = [f"--ask={one}" for one in settings]
            out = [f"--out={args.out / task}.json", f"--seeds={args.seeds}"]
            if code := mmtok(["evaluate", args.run, f"--task={task}", *items, *own, *asked, *out]):
                return code
    return 0


def with_names(queries: list[Query]) -> list[Query]:
    """The same, and the words of names as training queries."""
    known = {one.item for one in queries if one.split == "train"}
    others = {one.item for one in queries} - known
    chosen = known | {item for item in others if hashlib.sha256(item.encode()).digest()[0] % 2}
    return queries + [Query(" ".join(re.findall(r"[a-z]+|\d+", item)), item, "train") for item in sorted(chosen)]


def write(queries: list[Query], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([HEADER, *queries])


if __name__ == "__main__":
    sys.exit(main())
