"""Sources to shards: splits by group, shuffles once, has each entry checked or re-encoded, writes and reports."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.build.kinds import KINDS, preparer_of
from datamodules.build.names import open_source
from datamodules.build.prepare import Prepared, Preparer
from datamodules.build.source import Entry, Source, Wanted, fraction_of
from datamodules.manifest import Manifest
from datamodules.shardindex import write_atomically
from datamodules.writer import ShardWriter
from mmtok.schema import ConfigError, field_types, parse, suggest

DEFAULT_VAL_FRACTION = 0.1


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What `mmtok shards build` takes for every kind, besides the source and the folder."""

    kind: str | None = None
    """Of a source that holds several kinds, the one to take; None takes the one it holds more of."""
    names: str | None = None
    """What the names of the files say: a regular expression with groups `label`, `speaker`, `group`, `split`, or the
    name of a data set that is known (fsdd)."""
    split_by: str | None = None
    """What is never divided between sets: "file", or "speaker" where the names say one. None: as is usual for them."""
    val_fraction: float | None = None
    """Share of the groups that go to `val`. None: 0.1 where the source holds nothing out itself, else 0."""
    shard_mb: int = 128
    """Most megabytes of a shard."""
    limit: int | None = None
    """Most files of the source to take (before any are cut to pieces), over all sets."""
    seed: int = 0
    """Another one takes other files, where `limit` leaves some out. The sets they go to do not depend on it."""
    cache: str | None = None
    """Folder for what is downloaded; None means the user's cache folder."""
    workers: int = 0
    """Threads that read and encode; 0 means one a core, at most eight. The result does not depend on it."""
    column: str | None = None
    """Of a table, the column of vectors or texts."""
    key_column: str | None = None
    """Of a table, the column of keys."""
    label_column: str | None = None
    """Of a table, the column of classes."""
    keys: str | None = None
    """File with the keys of a .npy, one a line."""

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"there is no kind '{self.kind}'.{suggest(self.kind, KINDS)}")
        if self.split_by not in (None, "file", "speaker"):
            raise ValueError(f"split_by={self.split_by} must be file or speaker.")
        for name in ("limit", "shard_mb"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction} must be at least 0 and less than 1.")


@dataclass
class BuildReport:
    """What a build did."""

    out: Path
    sets: dict[str, Manifest] = field(default_factory=dict)
    """Set (train, val, test) -> its manifest."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Entries left out, and why."""
    noun: str = "entries"
    """What they are, in the plural."""
    remarks: list[str] = field(default_factory=list)
    """Lines about the content that a person should read."""
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
        lines += self.remarks
        lines += [f"left out {key}: {reason}" for key, reason in self.bad[:10]]
        if self.bad:
            lines.append(f"{len(self.bad)} {self.noun} were left out; all are named in {self.out / 'left_out.json'}")
        return "\n".join(lines)


def build_shards(
    source: str, out: Path, *, progress: Callable[[int, int], None] | None = None, **options: Any
) -> BuildReport:
    """Build shard sets from a path or a name.

    Args:
        source: see `open_source`.
        out: folder that gets train/, and val/ and test/ where there is something to hold out.
        progress: called with (files done, files in all).
        options: fields of `BuildOptions` and of the kind's own options (`PictureOptions` ...).

    Raises:
        ValueError: unknown source or option, a source that cannot be had, nothing readable in it, or a full disk.
    """
    general = field_types(BuildOptions)
    checked = parse(BuildOptions, {name: value for name, value in options.items() if name in general})
    own = {name: value for name, value in options.items() if name not in general}
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok"
    cache = Path(checked.cache).expanduser() if checked.cache else user_cache
    wanted = Wanted(**{name: getattr(checked, name) for name in field_types(Wanted)})
    with closing(open_source(source, cache.absolute(), wanted)) as opened:
        return build(opened, out, checked, own, progress=progress)


def build(
    source: Source,
    out: Path,
    options: BuildOptions,
    own: Mapping[str, Any] | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> BuildReport:
    """Write the sets of a source. The same source and options give the same bytes.

    Args:
        source: where the entries come from.
        out: see `build_shards`.
        options: for every kind.
        own: fields of the options of the source's kind.
        progress: see `build_shards`.
    """
    started = time.monotonic()
    entries = source.entries()
    kind = preparer_of(source.kind, own or {})
    preparer = kind(parse(kind.options, own or {}, label=kind.kind))
    splits = assign_splits(entries, options.val_fraction)
    # Sources come class by class. Hashes of the keys are an order that mixes them and is the same everywhere.
    seed = f"{options.seed}:" if options.seed else ""
    order = sorted(range(len(entries)), key=lambda i: fraction_of(seed + entries[i].key))[: options.limit]
    classes = sorted({entry.label for entry in entries if entry.label is not None})
    numbers = {name: str(i).encode() for i, name in enumerate(classes)}
    report = BuildReport(out, noun=kind.noun, remarks=list(source.remarks))
    preparer.begin([entries[i] for i in order if splits[i] == "train"], out)
    taken: dict[str, str] = {}
    with ExitStack() as stack:
        writers: dict[str, ShardWriter] = {}
        measures: dict[str, dict[str, dict[str, float]]] = {}
        for split in sorted({splits[i] for i in order}, key=("train", "val", "test").index):
            writers[split] = stack.enter_context(_writer(source, out, split, tuple(classes), options, preparer))
            measures[split] = {}
        prepared = _prepare_all([entries[i] for i in order], preparer, options.workers)
        for done, (i, result) in enumerate(zip(order, prepared, strict=True), 1):
            split, label = splits[i], entries[i].label
            measures[split][entries[i].key] = result.measures
            for key, parts in result.samples:
                writers[split].add(key, parts if label is None else parts | {"cls": numbers[label]})
                taken[entries[i].key] = split
            if not result.samples:
                report.bad.append((entries[i].key, result.left_out))
            if progress:
                progress(done, len(order))
        for split, writer in writers.items():
            if split not in taken.values():
                _refuse_empty(split, [entries[i] for i in order if splits[i] == split], report)
            writer.facts = preparer.facts(measures[split])
            report.remarks += [f"{split}: {line}" for line in preparer.remarks(writer.facts)]
        for name, content in source.companions(taken).items():
            write_atomically(out / name, content)  # before the manifests, which say that a build is finished
    report.sets = {split: writer.manifest for split, writer in writers.items()}
    report.seconds = time.monotonic() - started
    if report.bad:
        text = json.dumps(dict(report.bad), indent=1, ensure_ascii=False)
        (out / "left_out.json").write_text(text + "\n", encoding="utf-8")
    return report


def assign_splits(entries: list[Entry], val_fraction: float | None) -> list[str]:
    """The set of each entry: the source's own, and of its training set the groups whose hash is small go to val.

    A group keeps its place when others are added to the source or the fraction grows.
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


def _writer(
    source: Source, out: Path, split: str, classes: tuple[str, ...], options: BuildOptions, preparer: Preparer
) -> ShardWriter:
    provenance = source.provenance
    chosen = asdict(options)
    for name in ("kind", "cache", "workers", "shard_mb"):
        chosen.pop(name)  # what does not show in a sample
    chosen = {name: value for name, value in chosen.items() if value is not None} | preparer.shown()
    return ShardWriter(
        out / split,
        kind=preparer.kind,
        split=split,
        classes=classes,
        source=f"{provenance['kind']}:{provenance.get('package') or provenance['name']}",
        licence=provenance["licence"],
        provenance=provenance | {"options": chosen},
        shard_bytes=options.shard_mb << 20,
    )


def _prepare_all(entries: Iterable[Entry], preparer: Preparer, workers: int) -> Iterator[Prepared]:
    """Results of the entries in order, made by threads that run ahead a bounded way."""
    workers = workers or min(8, os.cpu_count() or 1)
    ahead: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for entry in entries:
            ahead.append(pool.submit(_try, entry, preparer))
            if len(ahead) > 4 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _try(entry: Entry, preparer: Preparer) -> Prepared:
    try:
        return preparer.prepare(entry)
    except (MemoryError, ConfigError):  # the machine's fault or the user's, not the file's
        raise
    except Exception as error:  # a damaged file makes PIL and zipfile raise nearly anything
        return Prepared([], {}, str(error))


def _refuse_empty(split: str, entries: list[Entry], report: BuildReport) -> None:
    """Say what is wrong with the content of a set when nothing of it could be used."""
    first = entries[0].key
    remedy = "Repair them or take them out of the source" + (", or give another --val-fraction" * (split == "val"))
    raise ValueError(
        f"none of the {len(entries)} {report.noun} could be used for the set '{split}'. "
        f"The first: {first}: {dict(report.bad)[first]}. {remedy}."
    )
