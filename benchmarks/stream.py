"""Samples a second of the stream against plain WebDataset over the same tars: `python -m benchmarks.stream SHARDS`.

Both read, decode to uint8 RGB and collate in this process; WebDataset shuffles with a buffer as large as our blocks.
Rounds alternate, the median counts. `read` leaves decoding out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
import webdataset

from datamodules.base import DataConfig
from datamodules.decode import decode, image_extension
from datamodules.stream import BatchStream, SlotSample, loader, open_sets


def ours(config: DataConfig, decoded: bool, workers: int) -> Iterator[int]:
    """Sizes of our batches."""
    item: Callable[[SlotSample], Any] = picture if decoded else raw
    stream = BatchStream(open_sets(config), config, item, gather, seed=0)
    return (len(batch["items"]) for batch in loader(stream, workers))


def peers(config: DataConfig, decoded: bool, workers: int) -> Iterator[int]:
    """Sizes of WebDataset's batches."""
    sets = open_sets(config)
    urls = [sets[0].tar_path(shard) for shard in range(len(sets[0].counts))]
    source = webdataset.WebDataset(urls, shardshuffle=100, seed=0).shuffle(config.shuffle)
    if decoded:
        source = source.decode("rgb8")
    source = source.to_tuple("jpg", "cls").batched(config.batch_size, collation_fn=None).repeat()
    ready = webdataset.WebLoader(source, batch_size=None, num_workers=workers, collate_fn=as_is)
    return (len(batch) for batch in ready)


def picture(sample: SlotSample) -> tuple[Any, int]:
    """Pixels and label."""
    extension = image_extension(sample.members)
    return decode(extension, sample.members[extension]), decode("cls", sample.members["cls"])


def raw(sample: SlotSample) -> SlotSample:
    """The bytes."""
    return sample


def gather(items: list[Any]) -> dict[str, Any]:
    """A batch without stacking, as the peer's."""
    return {"items": items}


def as_is(batch: Any) -> Any:
    """No conversion to tensors."""
    return batch


def rate(batches: Iterator[int], count: int) -> float:
    """Samples a second over `count` batches, once the peer's shuffle buffer is full."""
    for _ in islice(batches, 70):
        pass
    started = time.perf_counter()
    samples = sum(islice(batches, count))
    return samples / (time.perf_counter() - started)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", help="a shard set of JPEGs with classes")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = DataConfig(shards=args.shards, batch_size=64)
    print("| what | ours, samples/s | webdataset, samples/s | ratio |\n|---|---|---|---|")
    for name, decoded in (("read", False), ("read + decode", True)):
        found: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(args.rounds):
            found["ours"].append(rate(ours(config, decoded, args.workers), args.batches))
            found["peer"].append(rate(peers(config, decoded, args.workers), args.batches))
        mine, theirs = (statistics.median(found[who]) for who in ("ours", "peer"))
        print(f"| {name} | {mine:,.0f} | {theirs:,.0f} | {mine / theirs:.2f} |")


if __name__ == "__main__":
    main()
