"""Checks a shard set against itself: sizes, hashes, indexes, and whether every sample decodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

from datamodules.decode import DecodeError, decode, image_extension, is_decodable, may_hold_code, sound_extension
from datamodules.manifest import Manifest
from datamodules.remote import is_remote, shown
from datamodules.report import Category, ShardReport
from datamodules.shardindex import ShardError, ShardIndex
from datamodules.shards import ShardSet
from datamodules.tarscan import scan_file
from datamodules.vectoritem import read_item


def _vector(members: Mapping[str, bytes], manifest: Manifest) -> None:
    read_item("", members, manifest.provenance.get("width"))


CONTENT: dict[str, Callable[[Mapping[str, bytes], Manifest], object]] = {
    "images": lambda members, _: image_extension(members),
    "audio": lambda members, _: sound_extension(members),
    "vectors": _vector,
}
"""Kind of a set -> what looks at the member that its samples are about, and raises DecodeError."""


def verify(
    shard_set: ShardSet,
    *,
    sha256: bool = True,
    samples: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ShardReport:
    """Look through all shards.

    Args:
        shard_set: the set.
        sha256: compare hashes too, where the manifest has them.
        samples: samples decoded of each shard, evenly spread; None for all, 0 for none.
        progress: called with (shards done, shards in all).

    Returns:
        What was found; `report.ok` says whether all is well.
    """
    report = ShardReport(f"verify {shown(shard_set.home)}")
    for shard in range(len(shard_set.manifest.shards)):
        report.shards += 1
        try:
            _check_shard(shard_set, shard, sha256, samples, report)
        except (ShardError, OSError) as error:
            report.add(shard_set.manifest.shards[shard].name, "damaged", "", str(error))
        if progress:
            progress(shard + 1, len(shard_set.manifest.shards))
    return report


def _check_shard(shards: ShardSet, number: int, sha256: bool, samples: int | None, report: ShardReport) -> None:
    entry, where = shards.manifest.shards[number], shards.tar_path(number)
    fetched = shards.is_remote(number)
    tar = shards.cache.fetch(where, entry.bytes, entry.sha256) if fetched else Path(where)
    size = tar.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        report.add(entry.name, "mismatch", "", f"the tar has {size:,} bytes, the manifest says {entry.bytes:,}")
    if sha256 and entry.sha256:
        with tar.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != entry.sha256:
            said = f"{entry.sha256[:16]}..."
            report.add(entry.name, "mismatch", "", f"sha256 is {digest[:16]}..., the manifest says {said}")
    scanned = scan_file(tar)
    if scanned.damage:
        report.add(entry.name, "damaged", "", scanned.damage)
    for problem in scanned.refused:
        report.add(entry.name, "refused", problem.name, problem.reason)
    report.counts["refused"] += scanned.refused_count - len(scanned.refused)
    report.counts = +report.counts
    if len(scanned.samples) != entry.samples:
        found = len(scanned.samples)
        report.add(entry.name, "mismatch", "", f"the tar holds {found} samples, the manifest says {entry.samples}")
    index_path = shards.index_path(number)
    if is_remote(index_path):
        index_path = str(shards.cache.index(tar, index_path))
    # A remote shard may be listed without an index: the cache makes it of the tar that was fetched.
    if not fetched or Path(index_path).exists():
        index = ShardIndex.open(Path(index_path))
        if not index.same_places(scanned.index(size)):
            report.add(entry.name, "mismatch", "", "the index is not the tar's. Make it again: mmtok shards index")
        if index.tar_bytes != size:
            return  # none of its samples would be read
    _check_samples(shards, number, min(entry.samples, len(scanned.samples)), samples, report)


def _check_samples(shards: ShardSet, number: int, count: int, wanted: int | None, report: ShardReport) -> None:
    name = shards.manifest.shards[number].name
    wanted = count if wanted is None else min(wanted, count)
    for i in range(wanted):
        try:
            sample = shards.read(number, i * count // wanted)
        except ShardError as error:
            report.add(name, "damaged", shards.key(number, i * count // wanted), str(error))
            continue
        report.samples += 1
        if shards.manifest.kind in CONTENT:
            try:
                CONTENT[shards.manifest.kind](sample.members, shards.manifest)
            except DecodeError as error:
                report.add(name, "undecodable", sample.key, str(error))
        for extension, data in sample.members.items():
            try:
                decode(extension, data)
            except DecodeError as error:
                category: Category = "undecodable" if is_decodable(extension) else "not decoded"
                if may_hold_code(extension):
                    category = "refused"
                report.add(name, category, f"{sample.key}.{extension}", str(error))
