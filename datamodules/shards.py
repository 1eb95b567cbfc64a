"""A shard set: tars, a `manifest.json` that lists them, and an index a tar. Any sample is one read away.

The tars are plain WebDataset tars, so other tools read them too; the manifest gives the counts from which the order of
training is computed (`order.py`), the index gives the place of each sample, so that resuming is a seek.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.cache import ShardCache, is_remote
from datamodules.shardindex import ShardError, ShardIndex, write_atomically
from mmtok.schema import ConfigError, parse, to_plain

MANIFEST = "manifest.json"
FORMAT = "mmtok-shards-1"
MAX_OPEN = 128
"""Tars, each with its mapped index, held open by one process: well under the usual limit of 1,024 files."""


class Sample(NamedTuple):
    key: str
    """Name of the sample in its tar: the member's path up to the first dot."""
    members: dict[str, bytes]
    """Extension (without the dot) -> content."""


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar of a set."""

    name: str
    """Unique in the set. The index is NAME.idx beside the manifest, and so is NAME.tar unless `url` says otherwise."""
    samples: int
    bytes: int | None = None
    """Size of the tar; None where it is remote and was never read."""
    sha256: str | None = None
    url: str | None = None
    """Where the tar is, if not beside the manifest: a path (relative to it), an http(s) or a `pipe:` address."""

    def __post_init__(self) -> None:
        if not self.name or self.name.startswith(".") or any(c in self.name for c in "/\\\0"):
            raise ValueError(f"shard name {self.name!r} must be a plain file name")
        if self.samples < 0:
            raise ValueError(f"shard {self.name}: samples={self.samples} cannot be negative")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a shard set holds, and from where."""

    kind: str
    """"images", "audio", "text" or "vectors"."""
    split: str = ""
    """"train", "val" or "test"; empty where nobody said."""
    extensions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    """Names of the classes; a sample's `cls` member is a number into it."""
    source: str = ""
    licence: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Versions, hashes and options that made it."""
    shards: tuple[Shard, ...] = ()
    format: str = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format={self.format!r} is not {FORMAT!r}: it was written by another version of mmtok")
        names = Counter(shard.name for shard in self.shards)
        if len(names) < len(self.shards):
            raise ValueError(f"shard names repeat: {[name for name, count in names.most_common(5) if count > 1]}")

    @property
    def samples(self) -> int:
        """Samples of the whole set."""
        return sum(shard.samples for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """What the order depends on: names and counts of the shards. A resumed run must find the same."""
        text = "".join(f"{shard.name}:{shard.samples}\n" for shard in self.shards)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `manifest.json`, whole or not at all."""
        plain = {"format": self.format, "samples": self.samples} | to_plain(self)
        plain["shards"] = [{key: value for key, value in one.items() if value is not None} for one in plain["shards"]]
        write_atomically(folder / MANIFEST, (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            ShardError: it is missing, damaged or of another version.
        """
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ShardError(f"{path} cannot be read as a manifest: {error}") from error
        if isinstance(plain, dict):
            plain.pop("samples", None)  # for the reader of the file; the shards say it
        try:
            return parse(cls, plain, label="manifest.json")
        except ConfigError as error:
            raise ShardError(f"{path}: {error}") from error


class _Open(NamedTuple):
    fd: int
    places: ShardIndex


class ShardSet:
    """A shard set opened for reading by position. Safe to fork and to pickle: files are opened where they are read."""

    def __init__(self, folder: Path, manifest: Manifest, cache: ShardCache | None = None) -> None:
        self.folder = folder
        self.manifest = manifest
        self.cache = cache or ShardCache()
        self.counts = np.array([shard.samples for shard in manifest.shards], dtype=np.int64)
        """(shards,) samples of each."""
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._broken: dict[int, str] = {}

    @classmethod
    def open(cls, path: str | Path, *, cache_dir: str | Path | None = None, allow_pipe: bool = False) -> ShardSet:
        """Open a set by its folder or its manifest; no tar is touched yet.

        Raises:
            ShardError: there is no shard set, or it is empty or damaged.
        """
        path = Path(path).expanduser()
        manifest_path = path if path.name.endswith(".json") else path / MANIFEST
        if not manifest_path.is_file():
            within = sorted(str(found.parent) for found in path.glob(f"*/{MANIFEST}"))
            if within:
                raise ShardError(f"{path} is no shard set, but holds some. Name one: {', '.join(within)}.")
            tars = any(path.glob("*.tar")) if path.is_dir() else False
            # `build` makes the folders train/, val/ and test/ itself, `index` any.
            out = path.parent if path.name in ("train", "val", "test") else path
            remedy = f"mmtok shards index '{path}/*.tar'" if tars else f"mmtok shards build SOURCE -o {out}"
            raise ShardError(f"{path} is no shard set: {manifest_path} does not exist. Make it with: {remedy}")
        manifest = Manifest.load(manifest_path)
        if not manifest.samples:
            raise ShardError(f"{manifest_path} lists no samples.")
        return cls(manifest_path.parent, manifest, ShardCache(cache_dir, allow_pipe=allow_pipe))

    def __len__(self) -> int:
        return int(self.counts.sum())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict(), "_broken": {}}

    def read(self, shard: int, sample: int, extensions: Collection[str] | None = None) -> Sample:
        """One sample, read from its place in the tar.

        Args:
            shard: number of the shard in the manifest.
            sample: number of the sample in the shard.
            extensions: members to read, by the last part of their extension; None reads all.

        Raises:
            ShardError: the shard cannot be used, or does not hold what the manifest says.
        """
        fd, index = self._shard(shard)
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

    def key(self, shard: int, sample: int) -> str:
        """Key of a sample, or '#number' where the index cannot tell."""
        try:
            return self._shard(shard).places.key(sample)
        except (ShardError, IndexError):
            return f"#{sample}"

    def tar_path(self, shard: int) -> str:
        """Path or address of a shard's tar."""
        entry = self.manifest.shards[shard]
        if entry.url is None:
            return str(self.folder / f"{entry.name}.tar")
        return entry.url if is_remote(entry.url) else str(self.folder / entry.url)

    def index_path(self, shard: int) -> Path:
        """Where the index of a shard is written."""
        return self.folder / f"{self.manifest.shards[shard].name}.idx"

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
            self._broken[shard] = f"shard {self.manifest.shards[shard].name}: {error}"
            raise ShardError(self._broken[shard]) from error
        self._open[shard] = opened
        if len(self._open) > MAX_OPEN:
            os.close(self._open.popitem(last=False)[1].fd)
        return opened

    def _open_shard(self, shard: int) -> _Open:
        entry, where = self.manifest.shards[shard], self.tar_path(shard)
        path, index_path = Path(where), self.index_path(shard)
        if is_remote(where):
            path = self.cache.fetch(where, entry.bytes, entry.sha256)
            if not index_path.exists():  # a remote shard may be listed by its count alone
                index_path = self.cache.index(path)
        index = ShardIndex.open(index_path)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(fd).st_size
        if size != index.tar_bytes:
            os.close(fd)
            raise ShardError(f"{where} has {size} bytes, its index {index.tar_bytes}. Check: mmtok shards verify")
        return _Open(fd, index)

    def info(self) -> Mapping[str, Any]:
        """What `mmtok shards info` prints."""
        m = self.manifest
        known = [shard.bytes for shard in m.shards if shard.bytes is not None]
        return {
            "folder": str(self.folder),
            "kind": m.kind,
            "split": m.split or "not said",
            "samples": m.samples,
            "shards": len(m.shards),
            "bytes": sum(known),
            "shards of unknown size": len(m.shards) - len(known),
            "shards without sha256": sum(shard.sha256 is None for shard in m.shards),
            "remote shards": sum(is_remote(shard.url or "") for shard in m.shards),
            "extensions": ", ".join(m.extensions),
            "classes": len(m.classes),
            "source": m.source,
            "licence": m.licence,
            "fingerprint": m.fingerprint,
        }
