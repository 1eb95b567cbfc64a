"""A shard set: tars, a `manifest.json` that lists them, and an index a tar. Any sample is one read away.

The tars are plain WebDataset tars, so other tools read them too; the manifest gives the counts from which the order of
training is computed (`order.py`), the index gives the place of each sample, so that resuming is a seek.
"""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from datamodules import remote
from datamodules.cache import ShardCache
from datamodules.manifest import Manifest, find_manifest, remote_manifest
from datamodules.remote import is_remote
from datamodules.shardindex import ShardError, ShardIndex, may_pass

MAX_OPEN = 128
"""Tars of one set, each with its mapped index, held open by one process, where its limit of files allows that."""
IDLE = 4096
"""Samples read without one of a remote shard, after which it is closed: while open, it stays in the cache."""


class Sample(NamedTuple):
    key: str
    """Name of the sample in its tar: the member's path up to the first dot."""
    members: dict[str, bytes]
    """Extension (without the dot) -> content."""


class _Open(NamedTuple):
    fd: int
    places: ShardIndex
    leased: bool
    """Whether it holds a place in the node's cache."""


class ShardSet:
    """A shard set opened for reading by position. Safe to fork and to pickle: files are opened where they are read."""

    def __init__(
        self, home: str | Path, manifest: Manifest, cache: ShardCache | None = None, max_open: int | None = None
    ) -> None:
        self.home = str(home)
        """Folder or address of the manifest."""
        self.manifest = manifest
        self.cache = cache or ShardCache()
        self.max_open = max_open or share_of_files(1)
        """Tars that one process holds open."""
        self.counts = np.array([shard.samples for shard in manifest.shards], dtype=np.int64)
        """(shards,) samples of each."""
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._broken: dict[int, str] = {}
        self._reads = 0
        self._read_at: dict[int, int] = {}

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        cache_dir: str | Path | None = None,
        cache_bytes: int | None = None,
        allow_pipe: bool = False,
        max_open: int | None = None,
    ) -> ShardSet:
        """Open a set by its folder or its manifest, at a path or an address; no tar is touched yet.

        Args:
            path: where the set is.
            cache_dir: folder for remote shards.
            cache_bytes: most bytes in it.
            allow_pipe: permit `pipe:` addresses in the manifest.
            max_open: tars that one process holds open; by default as of a single set.

        Raises:
            ShardError: there is no shard set, or it is empty or damaged.
            UnreachableError: its address does not answer.
        """
        cache = ShardCache(cache_dir, limit_bytes=cache_bytes, allow_pipe=allow_pipe)
        if is_remote(str(path)):
            home, manifest = remote_manifest(str(path))
        else:
            found = find_manifest(Path(path).expanduser())
            home, manifest = str(found.parent), Manifest.load(found)
        if not manifest.samples:
            raise ShardError(f"{remote.shown(str(path))}: the manifest lists no samples.")
        return cls(home, manifest, cache, max_open)

    def name(self, parts: int = 1) -> str:
        """The last parts of its folder or address, as a name for files and figures."""
        path = urlsplit(self.home).path if is_remote(self.home) else str(Path(self.home).resolve())
        return "-".join([part for part in path.split("/") if part][-parts:]) or "set"

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_broken": {}, "_read_at": {}, "_reads": 0}

    def read(self, shard: int, sample: int, extensions: Collection[str] | None = None) -> Sample:
        """One sample, read from its place in the tar.

        Args:
            shard: number of the shard in the manifest.
            sample: number of the sample in the shard.
            extensions: members to read, by the last part of their extension; None reads all.

        Raises:
            ShardError: the shard cannot be used, or does not hold what the manifest says.
            OSError: it cannot be read now.
        """
        fd, index, _ = self._shard(shard)
        self._reads += 1
        self._read_at[shard] = self._reads
        if sample >= len(index):
            name, said = self.manifest.shards[shard].name, self.manifest.shards[shard].samples
            raise ShardError(f"shard {name} holds {len(index)} samples, its manifest says {said}")
        members = {}
        for extension, (offset, size) in index.members(sample).items():
            if extensions is None or extension.rpartition(".")[2] in extensions:
                members[extension] = data = os.pread(fd, size, offset)
                if len(data) < size:
                    raise ShardError(f"{index.key(sample)}.{extension} is cut short")
        return Sample(index.key(sample), members)

    def index(self, shard: int) -> ShardIndex:
        """Keys and places of the samples of a shard.

        Raises:
            ShardError: the shard cannot be used.
            OSError: it cannot be read now.
        """
        return self._shard(shard).places

    def key(self, shard: int, sample: int) -> str:
        """Key of a sample, or '#number' where the index cannot tell."""
        try:
            return self._shard(shard).places.key(sample)
        except (ShardError, OSError, IndexError):
            return f"#{sample}"

    def tar_path(self, shard: int) -> str:
        """Path or address of a shard's tar.

        Raises:
            ShardError: a manifest from elsewhere names a file of this machine.
        """
        entry = self.manifest.shards[shard]
        url = entry.url or f"{entry.name}.tar"
        if not is_remote(self.home):
            return url if is_remote(url) else str(Path(self.home) / url)
        here = url.startswith(("/", "file:", "~")) and not self.home.startswith("file:")
        if here or ".." in url.split("/"):
            raise ShardError(f"{remote.shown(self.home)} names {url}, which leads out of the set. Index it again.")
        return url if is_remote(url) else remote.join(self.home, url)

    def index_path(self, shard: int) -> str:
        """Path or address of a shard's index."""
        name = f"{self.manifest.shards[shard].name}.idx"
        return remote.join(self.home, name) if is_remote(self.home) else str(Path(self.home) / name)

    def is_remote(self, shard: int) -> bool:
        """Whether a shard is fetched through the cache."""
        return is_remote(self.home) or is_remote(self.manifest.shards[shard].url or "")

    @cached_property
    def remote(self) -> bool:
        """Whether any shard is."""
        return any(map(self.is_remote, range(len(self.manifest.shards))))

    def prefetch(self, shard: int) -> None:
        """Fetch a remote shard that will be needed, unless it is here or on its way."""
        if shard not in self._open and shard not in self._broken:
            entry = self.manifest.shards[shard]
            self.cache.prefetch(self.tar_path(shard), entry.bytes, entry.sha256)

    def close(self) -> None:
        """Close all tars."""
        while self._open:
            os.close(self._open.popitem()[1].fd)

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self.close()

    def _shard(self, shard: int) -> _Open:
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        if shard in self._broken:  # asked again for each of its samples: do not fetch or open it each time
            raise ShardError(self._broken[shard])
        try:
            opened = self._open_shard(shard)
        except (ShardError, OSError) as error:
            if may_pass(error):  # remembered, it would make bad samples of a whole shard until the process ends
                raise
            said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else error
            self._broken[shard] = f"shard {self.manifest.shards[shard].name}: {said}"
            raise ShardError(self._broken[shard]) from error
        self._open[shard] = opened
        if len(self._open) > self.max_open:
            os.close(self._open.popitem(last=False)[1].fd)
        return opened

    def _open_shard(self, shard: int) -> _Open:
        entry, where, index_path = self.manifest.shards[shard], self.tar_path(shard), self.index_path(shard)
        leased = self.is_remote(shard)
        if leased:
            self._close_idle()
            path, fd = self.cache.lease(where, entry.bytes, entry.sha256)
        else:
            path, fd = Path(where), os.open(where, os.O_RDONLY | os.O_CLOEXEC)
        try:
            # A remote shard may be listed by its count alone.
            if is_remote(index_path) or (leased and not Path(index_path).exists()):
                index_path = str(self.cache.index(path, index_path if is_remote(index_path) else None))
            index, size = ShardIndex.open(Path(index_path)), os.fstat(fd).st_size
            if size != index.tar_bytes:
                what = f"{remote.shown(where)} has {size} bytes, its index {index.tar_bytes}"
                raise ShardError(f"{what}. Check: mmtok shards verify")
        except BaseException:
            os.close(fd)
            raise
        return _Open(fd, index, leased)

    def _close_idle(self) -> None:
        """Close remote shards that the stream has left behind, so that the cache may drop them."""
        left = [
            shard
            for shard, opened in self._open.items()
            if opened.leased and self._reads - self._read_at.get(shard, 0) > IDLE
        ]
        for shard in left:
            os.close(self._open.pop(shard).fd)

    def info(self) -> Mapping[str, Any]:
        """What `mmtok shards info` prints."""
        m = self.manifest
        known = [shard.bytes for shard in m.shards if shard.bytes is not None]
        return {
            "folder": remote.shown(self.home),
            "kind": m.kind,
            "split": m.split or "not said",
            "samples": m.samples,
            "shards": len(m.shards),
            "bytes": sum(known),
            "shards of unknown size": len(m.shards) - len(known),
            "shards without sha256": sum(shard.sha256 is None for shard in m.shards),
            "remote shards": sum(map(self.is_remote, range(len(m.shards)))),
            "extensions": ", ".join(m.extensions),
            "classes": len(m.classes),
            "source": m.source,
            "licence": m.licence,
            "fingerprint": m.fingerprint,
        } | self._measured()

    def _measured(self) -> dict[str, Any]:
        """What a build measured of its kind."""
        facts = self.manifest.provenance
        plain = {
            name: facts[key] for key, name in
            (("hours", "hours"), ("width", "width"), ("exact_duplicates", "exact duplicates")) if key in facts
        }  # fmt: skip
        if rates := facts.get("sample_rates"):
            plain["sample rates"] = ", ".join(f"{int(rate):,}" for rate in rates)
        return plain


def share_of_files(sets: int) -> int:
    """Tars that one process may hold open of each of some sets to train on, beside as many to validate on.

    Each holds two descriptors, its own and that of its mapped index; half of the limit is left to everything else.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = soft if soft > 0 else 1 << 20  # no limit is a negative number
    return max(2, min(MAX_OPEN, limit // 2 // (2 * 2 * sets)))
