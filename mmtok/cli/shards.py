"""Build, index, describe and verify shard sets.

mmtok shards build fixture -o data/fixture
mmtok shards build photos/ -o data/photos --tile 256
mmtok shards build embeddings.npy -o data/items --keys keys.txt
mmtok shards build debian:asterisk -o data/asterisk --sample-rate 16000 --features mfcc
mmtok shards index 'https://host/set/{00000..00999}.tar' -o data/set
mmtok shards features data/photos/train -o data/taught/train --teacher efflite0
mmtok shards info data/photos/train
mmtok shards verify data/photos/train
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.report import ShardReport

KINDS = ("images", "audio", "text", "vectors")
SHOWN = 10
"""Samples left out that are printed."""
SPLITS = ("train", "val", "test")
BUILD_OPTIONS = (
    "kind", "names", "split_by", "val_fraction", "shard_mb", "limit", "seed", "cache", "workers",
    "size", "tile", "quality",
    "seconds", "min_seconds", "sample_rate", "channels", "min_loudness", "max_clipping", "features",
    "min_characters", "vectors", "dims",
    "column", "key_column", "label_column", "keys",
)  # fmt: skip
"""Flags of `build` that are options of its own name: for every kind, pictures, sounds, texts, tables."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action", required=True)
    _build_arguments(actions.add_parser("build", help="make shards of a folder, an archive, a package or a data set"))
    _index_arguments(actions.add_parser("index", help="make manifest and indexes for tars that exist"))
    features = actions.add_parser("features", help="copy a set, with a teacher's features beside every signal")
    features.add_argument("path", help="folder of the set, or its manifest.json")
    features.add_argument("-o", "--out", type=Path, required=True, help="folder of the new set")
    features.add_argument(
        "--teacher", required=True, metavar="NAME[:FOLDER]",
        help="efflite0, mfcc, minilm, minilm_document; or dinov2, siglip, wavlm with the folder of their weights",
    )  # fmt: skip
    features.add_argument("--cache-dir", help="folder for remote shards")
    info = actions.add_parser("info", help="say what a shard set holds")
    info.add_argument("path", help="folder of the set, or its manifest.json")
    info.add_argument("--json", action="store_true", help="as JSON")
    verify = actions.add_parser("verify", help="check sizes, hashes, indexes and samples of a set")
    verify.add_argument("path", help="folder of the set, or its manifest.json")
    verify.add_argument("--samples", type=int, help="samples to decode of each shard (default: all; 0: none)")
    verify.add_argument("--no-sha256", action="store_true", help="leave the hashes out")
    verify.add_argument("--cache-dir", help="folder for remote shards")
    verify.add_argument("--allow-pipe", action="store_true", help="permit addresses that run shell commands")
    verify.add_argument("--json", metavar="FILE", help="write the report as JSON too")


def _build_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="a folder, a zip, a .deb, a table, or a name (see --list)")
    parser.add_argument("-o", "--out", type=Path, help="folder that gets train/, val/ ...")
    parser.add_argument("--list", action="store_true", help="list the sources known by name")
    parser.add_argument(
        "--kind", help="images, audio, text or vectors, of a source that holds several (default: what it has more of)"
    )
    parser.add_argument("--names", help="pattern of the file names, with groups label, speaker, group, split; or fsdd")
    parser.add_argument("--split-by", help="file or speaker: what is never divided between sets")
    parser.add_argument("--val-fraction", type=float, help="share of the groups held out for validation (default 0.1)")
    parser.add_argument("--shard-mb", type=int, help="most megabytes of a shard (default 128)")
    parser.add_argument("--limit", type=int, help="most files to take")
    parser.add_argument("--seed", type=int, help="another one takes other files, where --limit leaves some out")
    parser.add_argument("--cache", help="folder for downloads")
    parser.add_argument("--workers", type=int, help="threads (default: one a core)")
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--size", type=int, help="make larger ones smaller: pixels of the shorter side")
    pictures.add_argument("--tile", type=int, help="cut them into squares of so many pixels a side")
    pictures.add_argument("--quality", type=int, help="JPEG quality where they are re-encoded (default 95)")
    sounds = parser.add_argument_group("sounds")
    sounds.add_argument("--seconds", type=float, help="longest segment that files are cut into (default 10)")
    sounds.add_argument("--min-seconds", type=float, help="shortest one that is taken (default 0.1)")
    sounds.add_argument("--sample-rate", type=int, help="resample to it (default: each file's own)")
    sounds.add_argument("--channels", type=int, help="1 mixes down (default: each file's own)")
    sounds.add_argument("--min-loudness", type=float, help="leave out segments below so many dB (default -60)")
    sounds.add_argument("--max-clipping", type=float, help="leave out those with more at full scale (default 0.01)")
    sounds.add_argument("--features", help="teacher features to write beside each segment: mfcc")
    texts = parser.add_argument_group("texts")
    texts.add_argument("--min-characters", type=int, help="shortest document that is taken (default 1)")
    texts.add_argument(
        "--vectors", help="make vectors of them: tfidf, minilm, or the folder of a build whose embedding is taken"
    )
    texts.add_argument("--dims", type=int, help="numbers of a vector (default: 256 of tfidf, 384 of minilm)")
    tables = parser.add_argument_group("tables of vectors (.npy, .parquet) or texts (.parquet, .csv, .jsonl)")
    tables.add_argument("--column", help="of the vectors or texts (default: vector, embedding, x, text or document)")
    tables.add_argument("--key-column", help="of the keys (default: key, id or item, else rows are numbered)")
    tables.add_argument("--label-column", help="of the classes")
    tables.add_argument("--keys", metavar="FILE", help="keys of a .npy, one a line")


def _index_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("urls", nargs="+", metavar="URL", help="paths, globs, folders or addresses, with {000..999}")
    parser.add_argument("-o", "--out", type=Path, help="where manifest and indexes go (default: beside the tars)")
    parser.add_argument("--kind", default="", choices=KINDS, help="what the samples are (default: images)")
    parser.add_argument("--split", default="", choices=SPLITS, help="the part of the data set")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--source", default="", help="where the data come from")
    parser.add_argument("--licence", default="", help="their licence")
    parser.add_argument("--sha256", action="store_true", help="compute hashes, which reads every tar whole")
    parser.add_argument("--workers", type=int, default=8, help="tars read at a time (default 8)")
    parser.add_argument("--cache-dir", help="folder for remote shards")
    parser.add_argument("--allow-pipe", action="store_true", help="permit addresses that run shell commands")
    parser.add_argument("--json", metavar="FILE", help="write the report as JSON too")


def run(args: argparse.Namespace) -> int:
    actions = {"features": _features, "build": _build, "index": _index, "info": _info, "verify": _verify}
    return actions[args.action](args)


def _build(args: argparse.Namespace) -> int:
    from datamodules.build import build_shards, source_names

    if args.list:
        names = source_names()
        width = max(map(len, names))
        print("\n".join(f"{name:{width}}  {about}" for name, about in names.items()))
        return 0
    if args.source is None or args.out is None:
        raise ValueError("shards build needs a source and -o FOLDER, or --list.")
    options = {name: value for name, value in vars(args).items() if name in BUILD_OPTIONS and value is not None}
    print(build_shards(args.source, args.out, progress=progress("files"), **options))
    return 0


def _index(args: argparse.Namespace) -> int:
    from datamodules.cache import ShardCache
    from datamodules.indexing import index_tars

    classes = tuple(args.classes.read_text(encoding="utf-8").split("\n")) if args.classes else ()
    manifest, report = index_tars(
        args.urls,
        args.out,
        kind=args.kind,
        split=args.split,
        classes=tuple(name.strip() for name in classes if name.strip()),
        source=args.source,
        licence=args.licence,
        sha256=args.sha256,
        workers=args.workers,
        cache=ShardCache(args.cache_dir, allow_pipe=args.allow_pipe),
        progress=progress("tars"),
    )
    lazy = sum(shard.bytes is None for shard in manifest.shards)
    code = _report(report, args.json)
    if report.reused:
        print(f"{report.reused:,} of them were indexed before")
    if lazy:
        print(f"{lazy:,} remote shards are known by their sidecars; each is indexed when it is first read")
    return code


def _features(args: argparse.Namespace) -> int:
    from datamodules.shards import ShardSet
    from mmtok.teachers import open_teacher
    from mmtok.teachers.write import write_features

    source, teacher = ShardSet.open(args.path, cache_dir=args.cache_dir), open_teacher(args.teacher)
    manifest, left_out = write_features(source, args.out, teacher, progress=progress("samples"))
    for line in left_out[:SHOWN]:
        print(f"left out {line}")
    more = f", {len(left_out):,} left out" if left_out else ""
    print(f"{args.out}: {manifest.samples:,} samples with {teacher.name}.npy in {len(manifest.shards)} shards{more}")
    print(f"train on them: data.shards={args.out} data.teacher={teacher.name}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from datamodules.shards import ShardSet

    info = ShardSet.open(args.path).info()
    if args.json:
        print(json.dumps(dict(info), indent=1, ensure_ascii=False))
        return 0
    width = max(map(len, info))
    for name, value in info.items():
        print(f"{name:{width}}  {value:,}" if isinstance(value, int) else f"{name:{width}}  {value}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from datamodules.shards import ShardSet
    from datamodules.verify import verify

    shards = ShardSet.open(args.path, cache_dir=args.cache_dir, allow_pipe=args.allow_pipe)
    report = verify(shards, sha256=not args.no_sha256, samples=args.samples, progress=progress("shards"))
    return _report(report, args.json)


def _report(report: ShardReport, file: str | None) -> int:
    """Print a report; the exit status is 1 where something is wrong."""
    print(report.text())
    if file:
        Path(file).write_text(json.dumps(report.plain(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if report.ok else 1


def progress(what: str) -> Callable[[int, int], None] | None:
    """A line that counts up on a terminal; nothing in a log file."""
    if not sys.stderr.isatty():
        return None
    drawn = 0.0

    def show(done: int, total: int) -> None:
        nonlocal drawn
        if done == total or time.monotonic() - drawn > 0.1:
            drawn = time.monotonic()
            print(f"\r{done:,}/{total:,} {what}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return show
