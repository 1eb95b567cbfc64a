"""The order table: equal hashes of the global batches whatever the world size and the workers.

`python -m benchmarks.order [SHARDS] [--updates 20] [--resume 7]`; without a set, a mixture of two small ones, 3 : 1, is
made. Each row reads samples through DataLoader workers, one stream a rank, and hashes the keys, seeds and bytes of each
update. World 16 does not divide the 8 streams: its ranks read each other's streams, and the batches are still the same.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.base import DataConfig, WeightedSet
from datamodules.reader import SlotSample
from datamodules.stream import BatchStream, loader, open_sets
from datamodules.writer import ShardWriter

SETTINGS = ((1, 0), (1, 3), (2, 1), (4, 2), (16, 0))
"""(world, workers)."""


def as_item(sample: SlotSample) -> tuple[str, int, str]:
    """Key, augmentation seed and content of a sample."""
    content = hashlib.sha256(b"".join(data for _, data in sorted(sample.members.items())))
    return sample.key, sample.seed, content.hexdigest()


def collate(items: list[Any]) -> dict[str, Any]:
    """A batch of them."""
    return {"items": items}


def hashes(config: DataConfig, world: int, workers: int, updates: int, start: int = 0) -> list[str]:
    """One hash an update, over the samples of all ranks in the order of their slots."""
    ranks = []
    for rank in range(world):
        stream = BatchStream(
            open_sets(config), config, as_item, collate, seed=0, rank=rank, world=world, start_update=start
        )
        ranks.append([batch["items"] for batch in islice(loader(stream, workers), updates)])
    joined = []
    for parts in zip(*ranks, strict=True):
        by_slot = [item for items in zip(*parts, strict=True) for item in items]  # rank r has the slots r mod world
        joined.append(hashlib.sha256(repr(by_slot).encode()).hexdigest())
    return joined


def synthetic(folder: Path) -> tuple[WeightedSet, ...]:
    """A mixture: 1,000 samples in 10 shards and 200 in 2, which come round more often."""
    sets = []
    for name, samples, weight in (("large", 1000, 3), ("small", 200, 1)):
        with ShardWriter(folder / name, kind="text", samples_per_shard=100) as writer:
            for i in range(samples):
                writer.add(f"{name}{i:04d}", {"txt": str(i).encode()})
        sets.append(WeightedSet(path=str(folder / name), weight=weight))
    return tuple(sets)


def main() -> int:
    """Print the table; the exit status says whether all rows agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", help="a shard set; by default a synthetic mixture")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--updates", type=int, default=20)
    parser.add_argument("--resume", type=int, default=7, help="update at which a second row of each setting starts")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "This DataLoader will create")  # three workers on two cores are the point here
    with tempfile.TemporaryDirectory() as folder:
        path = args.shards or synthetic(Path(folder) / "set")
        config = DataConfig(shards=path, batch_size=args.batch_size)
        sets = " + ".join(f"{len(one):,} samples in {len(one.counts)} shards" for one in open_sets(config))
        print(f"{sets}, batch {args.batch_size}, {args.updates} updates\n")
        print(f"| world | workers | from update | update 0 | last update | updates from {args.resume} on |")
        print("|---|---|---|---|---|---|")
        rows = {0: set[str](), args.resume: set[str]()}
        for world, workers in SETTINGS:
            for start in rows:
                found = hashes(config, world, workers, args.updates - start, start)
                from_resume = hashlib.sha256("".join(found[args.resume - start :]).encode()).hexdigest()[:16]
                rows[start].add("".join(found))
                head = found[0][:12] if start == 0 else "-"
                print(f"| {world} | {workers} | {start} | {head} | {found[-1][:12]} | {from_resume} |")
                rows[args.resume].add("".join(found[args.resume - start :]))
    same = all(len(found) == 1 for found in rows.values())
    print(f"\n{'all equal' if same else 'THEY DIFFER'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
