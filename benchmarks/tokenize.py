"""What `mmtok tokenize` costs beside its encoder: items a second against a bare loop, and a job that is killed.

    python -m benchmarks.tokenize [--tokenizer PATH] [--shards SET] [--size fit] [--batch 32] [--workers 1] [--repeat 5]

The bare loop has the same encoder, the same batches from the same loader, and saves the ids of each shard as one array;
it keeps no keys, lengths, order, index, hash or record. Both run in turn in one process, after a shard to warm up, and
the median of the pairs' ratios counts, without the time to load the tokenizer. By default that is one of 128 px at f8
with random weights, which costs what a trained one does, over photographs of the fixture (mmtok shards build fixture)
in shards of 64.

Then a job of its own is ended by SIGKILL as soon as its first shard stands, started again, and its folder compared,
byte by byte, with that of a job that was left alone.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import table
from datamodules.shards import ShardSet
from datamodules.stream import loader
from datamodules.writer import ShardWriter
from mmtok.export.encoding import Encoder, Settings, encode_shards, open_tokenizer
from mmtok.export.folder import write_model
from mmtok.export.token_plan import PLAN
from mmtok.export.token_shards import RECORD
from mmtok.export.tokenize_input import Gatherer, Preparer
from mmtok.export.tokenize_units import ShardUnits
from mmtok.tokenizers import build_tokenizer

ENCODER = {"name": "conv2d", "channels": 32, "multipliers": [1, 2, 2, 4], "blocks": 1}
MILLION = 1_000_000
BARE, OURS = "bare loop", "mmtok tokenize"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", help="a bundle, run or import; default: one of random weights")
    parser.add_argument("--shards", help="a shard set; default: pictures of the fixture, several times")
    parser.add_argument("--size", default="fit", help="as of mmtok tokenize")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tokenizer = args.tokenizer or random_tokenizer(home / "tokenizer")
        shards = args.shards or photographs(home)
        settings = Settings(tokenizer, shards, home / "codes", args.size, args.batch, workers=args.workers)
        rates = compare(settings, args.device, args.repeat)
        pairs = [[run[0] for run in rates[name]] for name in (BARE, OURS)]
        share = statistics.median(ours / bare for bare, ours in zip(*pairs, strict=True))
        rows = [
            (name, *(f"{rate:,.1f}" for rate, _ in runs), f"{statistics.median(cpu for _, cpu in runs) * 1000:,.1f}")
            for name, runs in rates.items()
        ]
        print(table(("items/s", *(f"run {i + 1}" for i in range(args.repeat)), "CPU ms/item"), rows))
        threads = f"{torch.get_num_threads()} threads" if args.device == "cpu" else torch.cuda.get_device_name()
        print(f"\n{share:.3f} of the bare loop (goal: 0.9), on {args.device}, {threads}, {args.workers} workers")
        print(f"a million items: {MILLION / statistics.median(pairs[1]) / 3600:,.2f} h of this device")
        print(killed(settings, args.device))


def random_tokenizer(path: Path) -> str:
    """A picture tokenizer of 128 px, f8, 16 bits of FSQ a position."""
    torch.manual_seed(0)
    tokenizer = {"name": "image", "image_size": 128, "dim": 32, "encoder": ENCODER}
    write_model(build_tokenizer(tokenizer, {"name": "fsq", "levels": [8, 8, 8, 5, 5, 5]}), path)
    return str(path)


def photographs(home: Path, count: int = 256) -> str:
    """The fixture's pictures, each several times under other keys, in shards of 64."""
    subprocess.run([sys.executable, "-m", "mmtok", "shards", "build", "fixture", "-o", str(home / "few")], check=True)
    few = ShardSet.open(home / "few" / "train")
    places = [(shard, i) for shard, number in enumerate(few.counts) for i in range(number)]
    with ShardWriter(home / "many", kind="images", split="train", samples_per_shard=64) as writer:
        for number in range(count):
            writer.add(f"{number:06d}", few.read(*places[number % len(places)]).members)
    return str(home / "many")


def compare(settings: Settings, device: str, repeat: int) -> dict[str, list[tuple[float, float]]]:
    """Items a second and CPU seconds an item of both, in turn."""
    source = settings.open()
    shards = list(range(len(source.manifest.shards)))
    items = sum(one.samples for one in source.manifest.shards)
    encoder, prepare = opened(settings, device)
    ways: dict[str, Callable[[], None]] = {
        BARE: lambda: bare_loop(settings, source, shards, encoder, prepare),
        OURS: lambda: encode_shards(settings, device, shards, lambda progress: None),
    }
    settings.out.mkdir()
    bare_loop(settings, source, shards[:1], encoder, prepare)
    loading = measured(lambda: opened(settings, device))  # within `encode_shards`, once a job
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeat):
        for name, way in ways.items():
            shutil.rmtree(settings.out)
            settings.out.mkdir()
            took, cpu = measured(way)
            took, cpu = (took - loading[0], cpu - loading[1]) if name == OURS else (took, cpu)
            rates[name].append((items / took, cpu / items))
    return rates


def measured(way: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and CPU seconds of this process and those it waited for, whatever else the machine does."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin, cpu = time.perf_counter(), time.process_time()
    way()
    took, own = time.perf_counter() - begin, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, own + after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime


def opened(settings: Settings, device: str) -> tuple[Encoder, Preparer]:
    tokenizer, _ = open_tokenizer(settings)
    return Encoder(tokenizer, device), Preparer.of(tokenizer, settings.size, settings.batch)


def bare_loop(settings: Settings, source: ShardSet, shards: list[int], encoder: Encoder, prepare: Preparer) -> None:
    """Read, encode, save."""
    gather = Gatherer(prepare)
    ids: list[np.ndarray] = []
    for unit in loader(ShardUnits(source, shards, prepare, ()), settings.workers):
        for batch in gather.gathered(unit.blocks, unit.last):
            codes = encoder(batch.x, batch.lengths)
            ids += [one.numpy().astype(np.uint16) for one in codes.ids]
        if unit.last:
            with (settings.out / f"{unit.shard}.npy").open("wb") as file:
                np.save(file, np.concatenate([one.reshape(-1) for one in ids]))
            ids = []


def killed(settings: Settings, device: str) -> str:
    """What became of a job that was killed, in a sentence."""
    home = settings.out.parent
    words = [sys.executable, "-m", "mmtok", "tokenize", settings.tokenizer, settings.shards]
    options = ["--size", settings.size, "--batch", str(settings.batch), "--workers", str(settings.workers)]
    options += ["--devices", device]
    left, stopped = home / "left", home / "stopped"
    subprocess.run([*words, str(left), *options], check=True, capture_output=True)
    process = subprocess.Popen([*words, str(stopped), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(stopped.glob(f"*{RECORD}")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stood = len(list(stopped.glob(f"*{RECORD}")))
    subprocess.run([*words, str(stopped), *options], check=True, capture_output=True)
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in (left, stopped))
    differ = sorted(name for name in one | two if one.get(name) != two.get(name))
    assert PLAN in one
    result = f"{len(differ)} files differ: {differ[:3]}" if differ else f"all {len(one)} files are byte-identical"
    shards = sum(name.endswith(RECORD) for name in one)
    return f"killed with {stood} of {shards} shards done, started again: {result}"


if __name__ == "__main__":
    main()
