"""Makes a shard set of tars that exist: reads their headers, writes manifest and indexes, leaves the tars alone."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from braceexpand import braceexpand

from datamodules.cache import ShardCache
from datamodules.manifest import MANIFEST, Manifest, Shard
from datamodules.remote import is_remote, read
from datamodules.report import MAX_NAMED, ShardReport
from datamodules.shardindex import ShardError, ShardIndex
from datamodules.tarscan import scan_file


@dataclass(frozen=True)
class _Entry:
    """A tar to index."""

    url: str
    name: str


@dataclass
class _Found:
    shard: Shard | None
    extensions: tuple[str, ...]
    report: ShardReport


def index_tars(
    urls: Iterable[str],
    folder: str | Path | None = None,
    *,
    kind: str = "",
    split: str = "",
    classes: tuple[str, ...] = (),
    source: str = "",
    licence: str = "",
    sha256: bool = False,
    workers: int = 8,
    cache: ShardCache | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, ShardReport]:
    """Write `manifest.json` and an index a tar. Run again, it takes up where it stopped.

    A remote tar with img2dataset's sidecar (NAME_stats.json) is not fetched: the sidecar gives its count, and its index
    is made when it is first read. All others are read once, headers only. Of a tar that is cut off, the complete
    samples are taken and the damage is reported; one without any is left out.

    Args:
        urls: paths, globs, folders, http(s), file: or (permitted by `cache`) pipe: addresses, with brace ranges.
        folder: where manifest and indexes go; by default beside the tars, if they are all in one folder.
        kind: "images", "audio", "text" or "vectors". This and the next four: what an earlier manifest says, if empty.
        split: "train", "val" or "test".
        classes: names of the classes.
        source: where the data come from.
        licence: their licence.
        sha256: compute hashes too, which reads every tar whole.
        workers: tars read at a time.
        cache: where remote tars go.
        progress: called with (tars done, tars in all).

    Raises:
        ShardError: nothing to index, an address that is not permitted, or no folder to write to.
    """
    cache = cache or ShardCache()
    entries = _entries(urls)
    for entry in entries:
        if is_remote(entry.url):
            cache.check(entry.url)
    home = _folder(entries, folder)
    home.mkdir(parents=True, exist_ok=True)
    report = ShardReport(f"index of {len(entries)} tars in {home}")
    earlier = Manifest.load(home / MANIFEST) if (home / MANIFEST).exists() else Manifest(kind="images")
    known = {shard.name: shard for shard in earlier.shards}
    shards, extensions = [], set[str]()
    with ThreadPoolExecutor(workers) as pool:
        jobs = pool.map(lambda entry: _index(entry, home, cache, sha256), entries)
        for done, found in enumerate(jobs, 1):
            _join(report, found.report)
            extensions |= set(found.extensions)
            if found.shard is not None:
                shards.append(_with_hash(found.shard, known))
            if progress:
                progress(done, len(entries))
    if not shards:
        raise ShardError(f"none of {len(entries)} tars holds a sample.\n{report.text()}")
    manifest = Manifest(
        kind=kind or earlier.kind,
        split=split or earlier.split,
        extensions=tuple(sorted(extensions)),
        classes=classes or earlier.classes,
        source=source or earlier.source,
        licence=licence or earlier.licence,
        provenance=earlier.provenance,
        shards=tuple(shards),
    )
    manifest.save(home)
    return manifest, report


def _entries(urls: Iterable[str]) -> list[_Entry]:
    """Addresses with braces, globs and folders expanded, each with a name that is unique in the set."""
    expanded: list[str] = []
    for url in urls:
        try:
            parts = [url] if url.startswith("pipe:") and "{" not in url else list(braceexpand(url))
        except ValueError as error:
            raise ShardError(f"{url}: {error}") from error
        for part in parts:
            if is_remote(part):
                expanded.append(part)
                continue
            pattern = str(Path(part).expanduser())
            if Path(pattern).is_dir():
                pattern = f"{glob.escape(pattern)}/*.tar"
            found = sorted(glob.glob(pattern))
            # A tar of a brace range that is missing is reported by name, with the others.
            expanded += [str(Path(one).absolute()) for one in found or [pattern]]
    if not expanded:
        raise ShardError("no tar to index: give paths or addresses, such as 'DIR/{000000..000999}.tar'.")
    stems = [url.split("?")[0].rstrip("/").rpartition("/")[2].removesuffix(".tar").lstrip(".") for url in expanded]
    stems = ["".join(c if c.isalnum() or c in "-_.+" else "_" for c in stem) or "shard" for stem in stems]
    often = Counter(stems)
    # x/part_8.tar and y/part_8.tar are two shards.
    tails = [f"-{hashlib.sha256(url.encode()).hexdigest()[:8]}" for url in expanded]
    entries = [
        _Entry(url, stem + tail if often[stem] > 1 else stem)
        for url, stem, tail in zip(expanded, stems, tails, strict=True)
    ]
    if len(set(entries)) < len(entries):
        raise ShardError(f"a tar is given twice: {Counter(expanded).most_common(1)[0][0]}")
    return entries


def _folder(entries: list[_Entry], folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    homes = {"" if is_remote(entry.url) else str(Path(entry.url).parent) for entry in entries}
    if len(homes) > 1 or "" in homes:
        raise ShardError("the tars are remote or in several folders: say where the manifest goes with -o FOLDER.")
    return Path(homes.pop())


def _index(entry: _Entry, home: Path, cache: ShardCache, sha256: bool) -> _Found:
    report = ShardReport(entry.name, shards=1)
    try:
        if is_remote(entry.url):
            return _index_remote(entry, home, cache, sha256, report)
        return _index_local(entry, Path(entry.url), home, sha256, report)
    except (ShardError, OSError) as error:
        report.add(entry.name, "damaged", "", str(error))
        return _Found(None, (), report)


def _index_remote(entry: _Entry, home: Path, cache: ShardCache, sha256: bool, report: ShardReport) -> _Found:
    counted = None if sha256 else _remote_count(entry.url)
    index_path = home / f"{entry.name}.idx"
    if counted is not None and not index_path.exists():
        report.samples = counted
        return _Found(Shard(name=entry.name, samples=counted, url=entry.url), (), report)
    if index_path.exists() and not sha256:
        index = ShardIndex.open(index_path)
        report.reused = 1
        return _found(entry, home, index, report)
    return _index_local(entry, cache.fetch(entry.url), home, sha256, report)


def _index_local(entry: _Entry, tar: Path, home: Path, sha256: bool, report: ShardReport) -> _Found:
    index_path, size = home / f"{entry.name}.idx", tar.stat().st_size
    index = None
    if index_path.exists():
        try:
            index = ShardIndex.open(index_path)
        except ShardError:
            index = None  # cut short by another tool or version: made again
    if index is not None and index.tar_bytes == size and (index.notes.get("sha256") or not sha256):
        report.reused = 1
        if index.notes.get("refused"):
            left = index.notes["refused"]
            report.add(entry.name, "refused", "", f"{left} members, named when the tar was first read", left)
    else:
        scanned = scan_file(tar)
        index = scanned.index(size)
        if sha256:
            index.notes["sha256"] = _sha256(tar)
        index.save(index_path)
        for problem in scanned.refused:
            report.add(entry.name, "refused", problem.name, problem.reason)
        report.counts["refused"] += scanned.refused_count - len(scanned.refused)
    stats = _counted(_stats_path(str(tar)).read_bytes) if not is_remote(entry.url) else None
    if stats is not None and stats != len(index):
        report.add(entry.name, "mismatch", "", f"img2dataset counted {stats} samples, the tar holds {len(index)}")
    return _found(entry, home, index, report)


def _found(entry: _Entry, home: Path, index: ShardIndex, report: ShardReport) -> _Found:
    report.counts = +report.counts
    report.samples = len(index)
    if index.notes.get("damage"):
        report.add(entry.name, "damaged", "", f"{index.notes['damage']}; {len(index)} complete samples are taken")
    if not len(index):
        return _Found(None, (), report)
    url = None if Path(entry.url) == (home / f"{entry.name}.tar").absolute() else entry.url
    shard = Shard(name=entry.name, samples=len(index), bytes=index.tar_bytes, sha256=index.notes.get("sha256"), url=url)
    return _Found(shard, index.extensions, report)


def _with_hash(shard: Shard, known: dict[str, Shard]) -> Shard:
    """The shard with the hash that an earlier manifest gives it: it is what `verify` should find."""
    old = known.get(shard.name)
    same = old is not None and old.bytes == shard.bytes
    return replace(shard, sha256=shard.sha256 or old.sha256) if old and same else shard


def _stats_path(url: str) -> Path:
    return Path(url.removesuffix(".tar") + "_stats.json")


def _remote_count(url: str) -> int | None:
    address, mark, query = url.partition("?")
    if url.startswith(("pipe:", "file:")) or not address.endswith(".tar"):
        return None
    return _counted(lambda: read(f"{address.removesuffix('.tar')}_stats.json{mark}{query}"))


def _counted(fetch: Callable[[], bytes]) -> int | None:
    """Samples by img2dataset's sidecar; None where there is none to rely on."""
    try:
        stats: Any = json.loads(fetch())
        return int(stats["successes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _join(report: ShardReport, part: ShardReport) -> None:
    report.shards += part.shards
    report.samples += part.samples
    report.reused += part.reused
    report.counts += part.counts
    report.findings += part.findings[: max(0, MAX_NAMED - len(report.findings))]
