"""Vocabularies of text beside the engine's own defaults, at equal size, of the same texts.

    mmtok shards build debian:libreoffice-help -o data/libreoffice-help
    mmtok shards build debian:fortunes -o data/fortunes
    python -m benchmarks.text data/libreoffice-help data/fortunes [--size 32768] [--out runs/text] [--threads 1]

Each is fitted in a process of its own on the `train` sets and measured on all of the `val` sets by `mmtok evaluate`;
the engine's two get exactly the sample that ours had. What is measured is kept in --out, and not measured again. CPU
seconds are of the whole fit, reading included, of all threads; peak is its memory. MB/s are per second of CPU time of
our `encode`, and "of engine" what that keeps of the engine's own speed, in turns on the same batches.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import table
from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer

OURS = {
    "text/bpe": ("text/bpe",),
    "text/bpe, characters": ("text/bpe", "tokenizer.alphabet=characters"),
    "text/bpe, spaces": ("text/bpe", "tokenizer.split=spaces"),
    "text/unigram": ("text/unigram",),
    "text/unigram, spaces": ("text/unigram", "tokenizer.split=spaces"),
    "text/bytes": ("text/bytes",),
}
THEIRS = ("ByteLevelBPETokenizer", "SentencePieceUnigramTokenizer")
REFERENCE = "en-US"
"""Of parity: the pages that the others were translated from."""
BATCH, REPEAT = 64, 3
END = "<|endoftext|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path, metavar="DIR", help="folders with train and val")
    parser.add_argument("--size", type=int, default=32768, help="tokens (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder of runs and figures")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default %(default)s)")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.arm:
        work(args, args.arm)
        return
    found = {}
    for arm in (*OURS, *THEIRS):
        target = place(args.out, arm) / "figures.json"
        if not target.is_file():
            environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
            subprocess.run(
                [sys.executable, "-m", "benchmarks.text", *sys.argv[1:], "--arm", arm], check=True, env=environment
            )
        found[arm] = json.loads(target.read_text())
    show(found)


def place(out: Path, arm: str) -> Path:
    return out / arm.replace("/", "-").replace(", ", "-")


def work(args: argparse.Namespace, arm: str) -> None:
    """Fit and measure one vocabulary."""
    folder = place(args.out, arm)
    began = os.times()
    fitted = ours(args, arm, folder) if arm in OURS else theirs(args, arm)
    now = os.times()
    cpu = now.user + now.system - began.user - began.system
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = measure(args, fitted) | {"fit": {"cpu": cpu, "peak": peak}}
    found |= speed(args, fitted) if arm in OURS else {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.json").write_text(json.dumps(found, indent=1))


def ours(args: argparse.Namespace, arm: str, folder: Path) -> SubwordTokenizer:
    """As the command fits it."""
    import mmtok
    from mmtok.cli import main as command

    recipe, *settings = OURS[arm]
    if recipe != "text/bytes":
        settings.append(f"tokenizer.vocab_size={args.size}")
    words = [recipe, f"data.shards={weighted(args)}", f"run_dir={folder}", f"threads={args.threads}", *settings]
    assert command(["train", *words]) == 0
    tokenizer = mmtok.load(folder)
    assert isinstance(tokenizer, SubwordTokenizer)
    return tokenizer


def theirs(args: argparse.Namespace, arm: str) -> SubwordTokenizer:
    """As the engine's own class trains it, with the names it needs; then in our clothes, to be measured alike."""
    import tokenizers

    from mmtok.config import load_any

    data = load_any(["text/bpe"], [f"data.shards={weighted(args)}"]).config.data
    from datamodules.base import datamodules

    module: Any = datamodules.build(data)
    engine = getattr(tokenizers, arm)()
    extra = {"unk_token": "<unk>", "special_tokens": [END, "<unk>"]} if "Unigram" in arm else {"special_tokens": [END]}
    engine.train_from_iterator(module.sample(0), vocab_size=args.size, show_progress=False, **extra)
    tokenizer = SubwordTokenizer(SubwordConfig(alphabet="characters" if "Unigram" in arm else "bytes"))
    tokenizer.model = torch.frombuffer(bytearray(engine.to_str().encode()), dtype=torch.uint8)
    return tokenizer


def weighted(args: argparse.Namespace) -> str:
    return "[" + ", ".join(f"{{path: {one / 'train'}}}" for one in args.sets) + "]"


def batches(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every document held out, as `mmtok evaluate` reads it."""
    from datamodules.texts import TextsConfig
    from mmtok.evaluation.heldout import HeldOut

    val = tuple(str(one / "val") for one in args.sets)
    yield from HeldOut(
        TextsConfig(
            shards=str(args.sets[0] / "train"), val_shards=val, val_samples=10**9, val_batch_size=BATCH, workers=0
        )
    )  # type: ignore[misc]


def measure(args: argparse.Namespace, tokenizer: SubwordTokenizer) -> dict[str, Any]:
    from mmtok.evaluation.text import evaluate_text

    report = evaluate_text(tokenizer, batches(args), reference=REFERENCE).to_dict()
    unknown = tokenizer.engine.token_to_id("<unk>")
    lost = 0
    if unknown is not None:  # what cannot be written at all: the engine's own classes have no bytes to fall back on
        lost = sum(row.count(unknown) for batch in batches(args) for row in tokenizer.tokens(batch["x"]))
    return {"report": report, "unknown": lost / report["metrics"]["tokens"]}


def speed(args: argparse.Namespace, tokenizer: SubwordTokenizer) -> dict[str, Any]:
    """Megabytes a second of CPU time, which other programs do not lower: ours and the engine's in turns, medians."""
    texts = [list(batch["x"]) for batch in batches(args)]
    size = sum(len(text.encode()) for batch in texts for text in batch) / 1e6
    bare = tokenizer.engine.encode_batch_fast
    rates: dict[str, list[float]] = {"ours": [], "engine": []}
    ways: dict[str, Callable[[list[str]], Any]] = {"ours": tokenizer.encode, "engine": bare}
    for _ in range(REPEAT):
        for name, way in ways.items():
            began = time.process_time()
            for batch in texts:
                way(batch)
            rates[name].append(size / (time.process_time() - began))
    return {
        "speed": statistics.median(rates["ours"]),
        "of_engine": statistics.median(
            ours / engine for ours, engine in zip(rates["ours"], rates["engine"], strict=True)
        ),
    }


def show(found: dict[str, Any]) -> None:
    rows = []
    for arm, one in found.items():
        m = one["report"]["metrics"]
        fallback = m["fallback_share"] + one["unknown"]
        rows.append([
            arm, f"{m['vocabulary']:,.0f}", f"{m['bytes_per_token']:.3f}", f"{m['characters_per_token']:.3f}",
            f"{m['exact']:.1%}", f"{fallback:.2%}" + (" lost" if one["unknown"] else ""), f"{m['bits_per_byte']:.3f}",
            f"{m['vocabulary_used']:.1%}", f"{m['unreached']:,.0f}" if not one["unknown"] else "-",
            f"{m['renyi_efficiency']:.3f}", f"{one['speed']:.2f}" if "speed" in one else "-",
            f"{one['of_engine']:.2f}" if "speed" in one else "-",
            f"{one['fit']['cpu']:.0f}", f"{one['fit']['peak']:,.0f}",
        ])  # fmt: skip
    header = (
        "", "tokens", "bytes/token", "characters/token", "exact", "fallback", "bits/byte", "in use", "unreached",
        "Renyi", "MB/CPU s", "of engine", "fit, CPU s", "peak, MB",
    )  # fmt: skip
    print(table(header, rows))
    languages = sorted({name for one in found.values() for name in one["report"]["choices"]["by_language"]})
    print()
    cells = []
    for arm, one in found.items():
        by = one["report"]["choices"]["by_language"]
        cells.append([arm, *(said(by[name]) for name in languages)])
    documents = next(iter(found.values()))["report"]["choices"]["parity"]["documents"]
    print(f"Bytes a token, and parity: tokens over those of {REFERENCE} on the same {documents:,} pages.\n")
    print(table(("", *languages), cells))


def said(language: dict[str, Any]) -> str:
    return f"{language['bytes_per_token']:.2f}" + (f" ({language['parity']:.2f})" if "parity" in language else "")


if __name__ == "__main__":
    main()
