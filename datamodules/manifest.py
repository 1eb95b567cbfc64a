"""What a shard set lists: its tars, their counts, sizes and hashes, and where it all comes from (`manifest.json`)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datamodules import remote
from datamodules.shardindex import ShardError, write_atomically
from mmtok.schema import ConfigError, parse, to_plain

MANIFEST = "manifest.json"
FORMAT = "mmtok-shards-1"


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
    """Where the tar is, if not beside the manifest: a path (relative to it), or an address (see `remote.py`)."""

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
            return cls.parse(path.read_bytes(), str(path))
        except OSError as error:
            raise ShardError(f"{path} cannot be read as a manifest: {error}") from error

    @classmethod
    def parse(cls, content: bytes, where: str) -> Manifest:
        """A manifest's content, from `where`; errors as of `load`."""
        try:
            plain = json.loads(content)
        except ValueError as error:
            raise ShardError(f"{where} cannot be read as a manifest: {error}") from error
        if isinstance(plain, dict):
            plain.pop("samples", None)  # for the reader of the file; the shards say it
        try:
            return parse(cls, plain, label="manifest.json")
        except ConfigError as error:
            raise ShardError(f"{where}: {error}") from error


def find_manifest(path: Path) -> Path:
    """The manifest of a local set.

    Raises:
        ShardError: there is none; says what stands there, and how to make one.
    """
    found = path if path.name.endswith(".json") else path / MANIFEST
    if found.is_file():
        return found
    within = sorted(str(manifest.parent) for manifest in path.glob(f"*/{MANIFEST}"))
    if within:
        raise ShardError(f"{path} is no shard set, but holds some. Name one: {', '.join(within)}.")
    tars = any(path.glob("*.tar")) if path.is_dir() else False
    # `build` makes the folders train/, val/ and test/ itself, `index` any.
    out = path.parent if path.name in ("train", "val", "test") else path
    remedy = f"mmtok shards index '{path}/*.tar'" if tars else f"mmtok shards build SOURCE -o {out}"
    raise ShardError(f"{path} is no shard set: {found} does not exist. Make it with: {remedy}")


def remote_manifest(url: str) -> tuple[str, Manifest]:
    """Address of the folder, and the manifest in it."""
    named = url.split("?")[0].endswith(".json")
    where = url if named else remote.join(url, MANIFEST)
    try:
        content = remote.read(where)
    except remote.MissingError as error:
        raise ShardError(
            f"{remote.shown(url)} is no shard set: {remote.shown(where)} does not exist. Put a set there that "
            "'mmtok shards build' made, or list its tars in a set of your own: "
            "mmtok shards index 'URL/{000..999}.tar' -o DIR."
        ) from error
    home = url.replace("/" + where.split("?")[0].rpartition("/")[2], "", 1) if named else url
    return home, Manifest.parse(content, remote.shown(where))
