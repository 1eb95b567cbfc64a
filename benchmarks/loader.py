"""Samples a second of the stream against a bare `wds.DataPipeline` over the same tars, and the time to resume.

`python -m benchmarks.loader [SHARDS] [--workers 0 1 2] [--rounds 5]`; without a set, one of 20,000 JPEGs of 64 x 64 is
made. Both decode with the same function and collate alike; WebDataset shuffles with a buffer as large as our blocks.
Rounds alternate, and each gives a ratio: the median and the range are shown. `read` leaves decoding out.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image

from datamodules.base import DataConfig
from datamodules.decode import decode, image_extension
from datamodules.reader import SlotSample
from datamodules.stream import BatchStream, loader, open_sets
from datamodules.writer import ShardWriter

POSITION = 100_000
"""Samples after which the stream is taken up again."""


def ours(config: DataConfig, item: Callable[[SlotSample], Any], workers: int, start: int = 0) -> Iterator[int]:
    """Sizes of our batches, from an update on."""
    stream = BatchStream(open_sets(config), config, item, gather, seed=0, start_update=start)
    return (len(batch["items"]) for batch in loader(stream, workers))


def peers(config: DataConfig, item: Callable[[SlotSample], Any], workers: int) -> Iterator[int]:
    """Sizes of WebDataset's batches."""
    (source,) = open_sets(config)
    urls = [source.tar_path(shard) for shard in range(len(source.counts))]
    pipeline = webdataset.DataPipeline(
        webdataset.SimpleShardList(urls, seed=0),
        webdataset.split_by_worker,
        webdataset.tarfile_to_samples(),
        webdataset.shuffle(config.shuffle, initial=config.shuffle // 4),
        webdataset.map(partial(as_ours, item)),
        webdataset.batched(config.batch_size, collation_fn=None),
    ).with_epoch(10**9)
    return (
        len(batch) for batch in webdataset.WebLoader(pipeline, batch_size=None, num_workers=workers, collate_fn=raw)
    )


def as_ours(item: Callable[[SlotSample], Any], sample: dict[str, Any]) -> Any:
    """A sample of WebDataset's through the function that decodes ours."""
    members = {name: data for name, data in sample.items() if not name.startswith("__")}
    return item(SlotSample(sample["__key__"], members, 0, 0))


def picture(sample: SlotSample) -> tuple[Any, int]:
    """Pixels and label."""
    extension = image_extension(sample.members)
    return decode(extension, sample.members[extension]), decode("cls", sample.members["cls"])


def raw(sample: Any) -> Any:
    """The bytes; and batches without conversion to tensors."""
    return sample


def gather(items: list[Any]) -> dict[str, Any]:
    """A batch without stacking, as the peer's."""
    return {"items": items}


def rate(batches: Iterator[int], count: int, skip: int = 70) -> float:
    """Samples a second over `count` batches, once the peer's shuffle buffer is full."""
    for _ in islice(batches, skip):
        pass
    started = time.perf_counter()
    samples = sum(islice(batches, count))
    return samples / (time.perf_counter() - started)


def resume(config: DataConfig, workers: int, samples: int) -> float:
    """Seconds from nothing to the first batch after a position: sets opened, workers started, batch decoded."""
    started = time.perf_counter()
    next(ours(config, picture, workers, start=samples // config.batch_size))
    return time.perf_counter() - started


def synthetic(folder: Path, samples: int = 20_000, size: int = 64) -> str:
    """A set of JPEGs, of 50 pictures over and over."""
    pictures = []
    for number in range(50):
        coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        pictures.append(file.getvalue())
    with ShardWriter(folder, kind="images", samples_per_shard=2000) as writer:
        for i in range(samples):
            writer.add(f"{i:06d}", {"jpg": pictures[i % 50], "cls": str(i % 10).encode()})
    return str(folder)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="?", help="a shard set of JPEGs with classes; by default a synthetic one")
    parser.add_argument("--batches", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = DataConfig(shards=args.shards or synthetic(Path(folder) / "set"), batch_size=64)
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.rounds} rounds of {args.batches} x 64\n")
        print("| workers | what | ours, samples/s | wds.DataPipeline, samples/s | ratio, median (range) |")
        print("|---|---|---|---|---|")
        for workers in args.workers:
            for name, item in (("read", raw), ("read + decode", picture)):
                rounds = [
                    (rate(ours(config, item, workers), args.batches), rate(peers(config, item, workers), args.batches))
                    for _ in range(args.rounds)
                ]
                mine, theirs = (statistics.median(found) for found in zip(*rounds, strict=True))
                ratios = sorted(a / b for a, b in rounds)
                shown = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                print(f"| {workers} | {name} | {mine:,.0f} | {theirs:,.0f} | {shown} |", flush=True)
        print("\n| workers | first batch of a new run, s | first batch from sample 100,000 on, s |\n|---|---|---|")
        for workers in args.workers:
            new, again = (statistics.median(resume(config, workers, at) for _ in range(3)) for at in (0, POSITION))
            print(f"| {workers} | {new:.2f} | {again:.2f} |", flush=True)


if __name__ == "__main__":
    main()
