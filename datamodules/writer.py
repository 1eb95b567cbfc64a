"""Writes shard sets: the same samples give the same bytes, and a build that was killed continues where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tarfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from datamodules.manifest import MANIFEST, Manifest, Shard
from datamodules.shardindex import Members, ShardError, ShardIndex, write_atomically
from datamodules.tarscan import BLOCK
from mmtok.schema import to_plain

UNFINISHED = ".unfinished.json"
"""Stands in the folder from the first sample to the manifest, and says what is being built."""
MAX_KEY = 80


class ShardWriter:
    """Writes samples to tars of bounded size; the manifest comes last, so a set without one is not finished.

    The same call with the same arguments in the same folder continues a build that was killed: samples that stand in a
    finished shard are recognised by their keys and not written again; `skip(key)` saves the caller from making their
    bytes.

        with ShardWriter(folder, kind="images", split="train") as writer:
            writer.add("cat_001", {"jpg": data, "cls": b"3"})
        writer.manifest
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kind: str,
        split: str = "",
        classes: tuple[str, ...] = (),
        source: str = "",
        licence: str = "",
        provenance: Mapping[str, Any] | None = None,
        samples_per_shard: int = 10_000,
        shard_bytes: int = 256 << 20,
    ) -> None:
        """Start or continue a set.

        Args:
            folder: made if absent; must not hold a finished set.
            kind: "images", "audio", "text" or "vectors".
            split: "train", "val" or "test".
            classes: names of the classes, into which `cls` members count.
            source: where the data come from, in words.
            licence: their licence.
            provenance: versions, hashes and options; part of what a continued build must agree on.
            samples_per_shard: most samples of a shard.
            shard_bytes: most bytes of a shard, except that each holds one sample at least.

        Raises:
            ShardError: the folder holds a finished set, or an unfinished one of other arguments.
        """
        if samples_per_shard < 1:
            raise ShardError(f"samples_per_shard={samples_per_shard} must be at least 1.")
        self.folder = Path(folder)
        self.samples_per_shard = samples_per_shard
        self.shard_bytes = shard_bytes
        self.manifest = Manifest(
            kind=kind,
            split=split,
            classes=tuple(classes),
            source=source,
            licence=licence,
            provenance=dict(provenance or {}),
        )
        self.facts: dict[str, Any] = {}
        """What was found out while writing; joins the provenance in the manifest at the end."""
        self._extensions: set[str] = set()
        self._shards: list[Shard] = []
        self._keys: set[str] = set()
        self._originals: set[str] = set()
        self._standing: ShardIndex | None = None
        self._position = 0
        self._tar: ShardTar | None = None
        self._begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.finish()
        elif self._tar is not None:
            self._tar.discard()

    def skip(self, key: str) -> bool:
        """Whether the next sample, of this key, stands in a shard an earlier attempt finished; it is then added."""
        if self._standing is None:
            return False
        name = self._name(key)
        stands = self._standing.key(self._position)
        if stands != name:
            raise ShardError(
                f"{self.folder} holds an unfinished set with '{stands}' where '{name}' comes now: the source has "
                "changed. Remove the folder and build again."
            )
        self._advance()
        return True

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write one sample.

        Args:
            key: any text; what file names cannot hold is replaced. Unique in the set.
            members: extension (no dot in front) -> content.

        Raises:
            ShardError: the key came before, there is nothing to write, or the disk is full.
        """
        if not members or any(not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", extension) for extension in members):
            raise ShardError(f"sample {key!r} needs members with lower-case extensions, got {sorted(members)}.")
        if self.skip(key):
            return
        name = self._name(key)
        size = sum(BLOCK + len(data) + -len(data) % BLOCK for data in members.values())
        if self._tar and (len(self._tar.samples) == self.samples_per_shard or self._tar.size + size > self.shard_bytes):
            self._close_shard()
        try:
            if self._tar is None:
                self._tar = ShardTar(self.folder / f"{self._shard_name()}.tar")
            self._tar.add(name, members)
        except OSError as error:
            raise self._disk(error) from error

    def finish(self) -> Manifest:
        """Close the last shard and write the manifest."""
        if self._standing is not None:
            raise ShardError(f"{self.folder} holds more samples than the source gives now. Remove it and build again.")
        if self._tar is not None:
            self._close_shard()
        if not self._shards:
            raise ShardError(f"{self.folder}: no sample was added, so there is no shard set to write.")
        extensions, shards = tuple(sorted(self._extensions)), tuple(self._shards)
        provenance = self.manifest.provenance | self.facts
        found = {"extensions": extensions, "shards": shards, "provenance": provenance}
        self.manifest = Manifest(**(self.manifest.__dict__ | found))
        self.manifest.save(self.folder)
        (self.folder / UNFINISHED).unlink(missing_ok=True)
        return self.manifest

    def _begin(self) -> None:
        if (self.folder / MANIFEST).exists():
            raise ShardError(f"{self.folder} holds a finished shard set. Choose another folder or remove it.")
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        limits = {"samples_per_shard": self.samples_per_shard, "shard_bytes": self.shard_bytes}
        plan = json.dumps(to_plain(self.manifest) | limits, indent=1, ensure_ascii=False, sort_keys=True)
        note = self.folder / UNFINISHED
        if note.exists() and note.read_text(encoding="utf-8") != plan:
            raise ShardError(f"{self.folder} holds an unfinished set of other options. Remove it or choose another.")
        if not note.exists() and any(self.folder.glob("*.tar")):
            raise ShardError(f"{self.folder} holds tars already: mmtok shards index '{self.folder}/*.tar'.")
        write_atomically(note, plan.encode())
        self._next_standing()

    def _next_standing(self) -> None:
        """Take up the next shard that an earlier attempt finished."""
        tar, index = (self.folder / f"{self._shard_name()}{suffix}" for suffix in (".tar", ".idx"))
        self._position, self._standing = 0, None
        if tar.exists() and index.exists():
            self._standing = ShardIndex.open(index)
            digest = hashlib.sha256()
            with tar.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
            self._record(self._standing, digest.hexdigest())

    def _advance(self) -> None:
        self._position += 1
        if self._standing is not None and self._position == len(self._standing):
            self._next_standing()

    def _close_shard(self) -> None:
        assert self._tar is not None
        tar = self._tar
        try:
            index, digest = tar.close()
        except OSError as error:
            raise self._disk(error) from error
        self._tar = None
        self._record(index, digest)

    def _record(self, index: ShardIndex, digest: str) -> None:
        self._extensions |= set(index.extensions)
        name = self._shard_name()
        self._shards.append(Shard(name=name, samples=len(index), bytes=index.tar_bytes, sha256=digest))

    def _shard_name(self) -> str:
        return f"{self.manifest.split or 'shard'}-{len(self._shards):06d}"

    def _name(self, key: str) -> str:
        if key in self._originals:
            raise ShardError(f"sample key {key!r} came before: keys are unique in a set.")
        name = clean_key(key)
        if name in self._keys:  # another key that differs only in what was replaced
            name = f"{name[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
        self._originals.add(key)
        self._keys.add(name)
        return name

    def _disk(self, error: OSError) -> ShardError:
        done = len(self._shards)
        if self._tar is not None:
            self._tar.discard()
            self._tar = None
        return ShardError(
            f"{self.folder} cannot be written: {error.strerror or error}. {done} finished shards stand; "
            "free space and give the same command again: it continues after them."
        )


def clean_key(key: str) -> str:
    """A key that is a file name everywhere: no dots (the first one would end it), slashes or control characters."""
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", key)).strip("_")
    if len(name.encode()) > MAX_KEY or not name:
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        name = f"{name.encode()[: MAX_KEY - 9].decode(errors='ignore')}-{digest}".lstrip("-")
    return name


class ShardTar:
    """One tar of a set and its index, under a temporary name until `close`."""

    def __init__(self, path: Path) -> None:
        """Begin a tar that will be `path`; an unfinished one of that name is begun anew."""
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.samples: list[tuple[str, Members]] = []
        self.size = 0
        self._digest = hashlib.sha256()
        self._file = self.part.open("wb")

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Write one sample; its key is clean already."""
        places = {}
        for extension, data in sorted(members.items()):
            # No time, owner or machine in it: equal samples, equal bytes.
            header = tarfile.TarInfo(f"{key}.{extension}")
            header.size, header.mode = len(data), 0o644
            block = header.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
            places[extension] = (self.size + len(block), len(data))
            self._write(block + data + b"\0" * (-len(data) % BLOCK))
        self.samples.append((key, places))

    def close(self) -> tuple[ShardIndex, str]:
        """Put tar and index in their places; the tar last, since its presence means that the shard is finished."""
        self._write(b"\0" * (2 * BLOCK))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        index = ShardIndex.build(self.samples, self.size)
        index.save(self.path.with_suffix(".idx"))
        self.part.replace(self.path)
        return index, self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing half-written behind."""
        self.part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is still buffered does not fit either
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)
