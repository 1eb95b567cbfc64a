"""Sources to shards: splits by group, shuffles once, checks or re-encodes each picture, writes and reports."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.build.names import open_source
from datamodules.build.pictures import prepare
from datamodules.build.source import Entry, Source, fraction_of
from datamodules.manifest import Manifest
from datamodules.writer import ShardWriter
from mmtok.schema import parse

DEFAULT_VAL_FRACTION = 0.1
Prepared = list[tuple[str, dict[str, bytes]]]


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What `mmtok shards build` takes besides the source and the folder."""

    size: int | None = None
    """Shorter side in pixels; larger pictures are made smaller, smaller ones are left alone. None keeps the files."""
    tile: int | None = None
    """Cut each picture (after `size`) into squares of this many pixels a side. All tiles of one stay in one set."""
    quality: int = 95
    """JPEG quality of what `size` or `tile` re-encodes."""
    val_fraction: float | None = None
    """Share of the groups that go to `val`. None: 0.1 where the source holds nothing out itself, else 0."""
    shard_mb: int = 128
    """Most megabytes of a shard."""
    limit: int | None = None
    """Most pictures of the source to take (before tiles are cut), over all sets."""
    cache: str | None = None
    """Folder for what is downloaded; None means the user's cache folder."""
    workers: int = 0
    """Threads that read and encode; 0 means one a core, at most eight. The result does not depend on it."""

    def __post_init__(self) -> None:
        for name in ("size", "tile", "limit", "shard_mb"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction} must be at least 0 and less than 1.")
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality} must be 1 to 100.")
        if self.size and self.tile and self.size < self.tile:
            raise ValueError(f"size={self.size} leaves no room for tile={self.tile}. Use a size of at least the tile.")


@dataclass
class BuildReport:
    """What a build did."""

    out: Path
    sets: dict[str, Manifest] = field(default_factory=dict)
    """Set (train, val, test) -> its manifest."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Pictures left out, and why."""
    seconds: float = 0.0

    @property
    def samples(self) -> int:
        """Samples written, in all sets."""
        return sum(manifest.samples for manifest in self.sets.values())

    def __str__(self) -> str:
        lines = []
        for split, manifest in self.sets.items():
            size = sum(shard.bytes or 0 for shard in manifest.shards) / 1e6
            lines.append(
                f"{self.out / split}: {manifest.samples:,} samples, {len(manifest.shards)} shards, {size:,.1f} MB"
            )
        classes = len(next(iter(self.sets.values())).classes)
        lines.append(
            f"{classes} classes, {self.seconds:.1f} s, {self.samples / max(self.seconds, 1e-9):,.0f} samples/s"
        )
        lines += [f"left out {key}: {reason}" for key, reason in self.bad[:10]]
        if self.bad:
            lines.append(f"{len(self.bad)} pictures were left out; all are named in {self.out / 'left_out.json'}")
        return "\n".join(lines)


def build_shards(
    source: str, out: Path, *, progress: Callable[[int, int], None] | None = None, **options: Any
) -> BuildReport:
    """Build shard sets from a path or a name.

    Args:
        source: see `open_source`.
        out: folder that gets train/, and val/ and test/ where there is something to hold out.
        progress: called with (pictures done, pictures in all).
        options: fields of `BuildOptions`.

    Raises:
        ValueError: unknown source or option, a source that cannot be had, no readable picture, or a full disk.
    """
    checked = parse(BuildOptions, options)
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok"
    cache = Path(checked.cache).expanduser() if checked.cache else user_cache
    with closing(open_source(source, cache.absolute())) as opened:
        return build(opened, out, checked, progress=progress)


def build(
    source: Source, out: Path, options: BuildOptions, *, progress: Callable[[int, int], None] | None = None
) -> BuildReport:
    """Write the sets of a source. The same source and options give the same bytes."""
    started = time.monotonic()
    entries = source.entries()
    splits = assign_splits(entries, options.val_fraction)
    # Sources come class by class. Hashes of the keys are an order that mixes them and is the same everywhere.
    order = sorted(range(len(entries)), key=lambda i: fraction_of(entries[i].key))[: options.limit]
    classes = sorted({entry.label for entry in entries if entry.label is not None})
    numbers = {name: str(i).encode() for i, name in enumerate(classes)}
    report = BuildReport(out)
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        filled: set[str] = set()
        for split in sorted({splits[i] for i in order}, key=("train", "val", "test").index):
            writers[split] = stack.enter_context(_writer(source, out, split, tuple(classes), options))
        prepared = _prepare_all([entries[i] for i in order], options)
        for done, (i, result) in enumerate(zip(order, prepared, strict=True), 1):
            if isinstance(result, Exception):
                report.bad.append((entries[i].key, str(result)))
                continue
            filled.add(splits[i])
            for key, parts in result:
                label = entries[i].label
                writers[splits[i]].add(key, parts if label is None else parts | {"cls": numbers[label]})
            if progress:
                progress(done, len(order))
        for split in writers.keys() - filled:
            _refuse_empty(split, [entries[i] for i in order if splits[i] == split], report.bad)
    report.sets = {split: writer.manifest for split, writer in writers.items()}
    report.seconds = time.monotonic() - started
    if report.bad:
        text = json.dumps(dict(report.bad), indent=1, ensure_ascii=False)
        (out / "left_out.json").write_text(text + "\n", encoding="utf-8")
    return report


def assign_splits(entries: list[Entry], val_fraction: float | None) -> list[str]:
    """The set of each entry: the source's own, and of its training set the groups whose hash is small go to val.

    A group keeps its place when pictures are added to the source or the fraction grows.
    """
    own = [entry.split or "train" for entry in entries]
    if val_fraction is None:
        val_fraction = 0.0 if set(own) - {"train"} else DEFAULT_VAL_FRACTION
    if not val_fraction or "val" in own:
        return own
    places = {
        entry.group: fraction_of(f"split:{entry.group}") for entry in entries if (entry.split or "train") == "train"
    }
    held = {group for group, place in places.items() if place < val_fraction}
    if not held and len(places) > 1:
        held = {min(places, key=lambda group: places[group])}
    if len(held) == len(places) and held:  # leave something to train on
        held.discard(max(places, key=lambda group: places[group]))
    return [
        "val" if split == "train" and entry.group in held else split for split, entry in zip(own, entries, strict=True)
    ]


def _writer(source: Source, out: Path, split: str, classes: tuple[str, ...], options: BuildOptions) -> ShardWriter:
    provenance = source.provenance
    chosen = asdict(options)
    for name in ("cache", "workers", "shard_mb") + (() if options.size or options.tile else ("quality",)):
        chosen.pop(name)  # what does not show in a sample
    return ShardWriter(
        out / split,
        kind="images",
        split=split,
        classes=classes,
        source=f"{provenance['kind']}:{provenance.get('package') or provenance['name']}",
        licence=provenance["licence"],
        provenance=provenance | {"options": {name: value for name, value in chosen.items() if value is not None}},
        shard_bytes=options.shard_mb << 20,
    )


def _prepare_all(entries: Iterable[Entry], options: BuildOptions) -> Iterator[Prepared | Exception]:
    """Results of the entries in order, made by threads that run ahead a bounded way."""
    workers = options.workers or min(8, os.cpu_count() or 1)
    ahead: deque[Future[Prepared | Exception]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for entry in entries:
            ahead.append(pool.submit(_try, entry, options))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _try(entry: Entry, options: BuildOptions) -> Prepared | Exception:
    try:
        return prepare(entry, options.size, options.tile, options.quality)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes PIL and zipfile raise nearly anything
        return error


def _refuse_empty(split: str, entries: list[Entry], bad: list[tuple[str, str]]) -> None:
    """Say what is wrong with the pictures of a set when not one of them could be used."""
    first = entries[0].key
    remedy = "Repair them or take them out of the source" + (", or give another --val-fraction" * (split == "val"))
    raise ValueError(
        f"none of the {len(entries)} pictures could be used for the set '{split}'. "
        f"The first: {first}: {dict(bad)[first]}. {remedy}."
    )
