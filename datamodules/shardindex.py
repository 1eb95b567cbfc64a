"""The index of a shard: where each member of each sample lies in the tar, in a flat file that is mapped, not loaded.

Layout: a magic line, the length of a JSON header, the header, then little-endian int64 arrays (offsets and sizes of
samples x extensions, ends of the keys) and the keys. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MAGIC = b"mmtok-index-1\n"
MAX_EXTENSIONS = 64
"""Kinds of member in one shard: a tar of ten thousand made-up extensions must not make a table of their square."""

LASTING = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}
)
"""What is wrong with a path itself. Other errors of the system may pass (too many open files, a server that restarts),
and say nothing about the data."""

Members = dict[str, tuple[int, int]]
"""Extension -> (offset, size) in the tar."""


class ShardError(ValueError):
    """A shard, its index or its manifest that cannot be used: names it, and what helps."""


class DecodeError(ShardError):
    """Content that cannot be turned into an array, and why."""


def may_pass(error: Exception) -> bool:
    """Whether the same file may well be readable a moment later."""
    return isinstance(error, OSError) and not isinstance(error, ShardError) and error.errno not in LASTING


@dataclass(frozen=True)
class ShardIndex:
    """Keys and members of the samples of one tar, in the order of the tar."""

    extensions: tuple[str, ...]
    tar_bytes: int
    offsets: np.ndarray
    """(samples, extensions) int64, -1 where a sample has no such member."""
    sizes: np.ndarray
    """(samples, extensions) int64."""
    key_ends: np.ndarray
    """(samples,) int64, where each key ends in `keys`."""
    keys: memoryview | bytes = field(repr=False)
    notes: dict[str, Any] = field(default_factory=dict)
    """What was found when the tar was read: "sha256", "damage", "refused" (how many members)."""

    @classmethod
    def build(cls, samples: Sequence[tuple[str, Members]], tar_bytes: int) -> ShardIndex:
        """The index of (key, members) pairs, as the writer made them or a scan found them."""
        extensions = tuple(sorted({extension for _, members in samples for extension in members}))
        table = np.full((2, len(samples), len(extensions)), -1, dtype="<i8")
        column = {extension: i for i, extension in enumerate(extensions)}
        encoded = [key.encode() for key, _ in samples]
        for row, (_, members) in enumerate(samples):
            for extension, place in members.items():
                table[:, row, column[extension]] = place
        ends = np.cumsum([len(key) for key in encoded], dtype="<i8")
        return cls(extensions, tar_bytes, table[0], table[1], ends, b"".join(encoded))

    @classmethod
    def open(cls, path: Path) -> ShardIndex:
        """Map an index file.

        Raises:
            ShardError: it is missing, cut short, or something else.
            OSError: it cannot be read now.
        """
        remedy = "Write it again: mmtok shards index."
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            if may_pass(error):
                raise
            raise ShardError(f"{path} cannot be read as an index ({error}). {remedy}") from error
        try:
            return cls._parse(data)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise ShardError(f"{path} is damaged or no index ({error}). {remedy}") from error

    @classmethod
    def _parse(cls, data: memoryview) -> ShardIndex:
        if bytes(data[: len(MAGIC)]) != MAGIC:
            raise ValueError("wrong first line")
        at = len(MAGIC) + 4
        (length,) = struct.unpack_from("<I", data, len(MAGIC))
        header = json.loads(bytes(data[at : at + length]))
        extensions, samples = tuple(map(str, header["extensions"])), int(header["samples"])
        cells, at = samples * len(extensions), at + length
        if samples < 0 or len(data) != at + 8 * (2 * cells + samples) + int(header["key_bytes"]):
            raise ValueError(f"{len(data)} bytes do not hold {samples} samples")
        table = np.frombuffer(data, "<i8", 2 * cells, at).reshape(2, samples, len(extensions))
        ends = np.frombuffer(data, "<i8", samples, at + 16 * cells)
        keys = data[at + 16 * cells + 8 * samples :]
        notes = dict(header.get("notes", {}))
        return cls(extensions, int(header["tar_bytes"]), table[0], table[1], ends, keys, notes)

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        header = json.dumps(
            {
                "samples": len(self),
                "extensions": self.extensions,
                "tar_bytes": self.tar_bytes,
                "key_bytes": len(self.keys),
                "notes": self.notes,
            }
        ).encode()
        # Arrays start on a multiple of eight, so that they can be read in place.
        header += b" " * (-(len(MAGIC) + 4 + len(header)) % 8)
        parts = [MAGIC, struct.pack("<I", len(header)), header]
        arrays = [np.ascontiguousarray(part, "<i8").tobytes() for part in (self.offsets, self.sizes, self.key_ends)]
        write_atomically(path, b"".join([*parts, *arrays, self.keys]))

    def __len__(self) -> int:
        return len(self.key_ends)

    def same_places(self, other: ShardIndex) -> bool:
        """Whether two indexes describe one tar."""
        tables = zip(
            (self.offsets, self.sizes, self.key_ends), (other.offsets, other.sizes, other.key_ends), strict=True
        )
        same = self.extensions == other.extensions and self.tar_bytes == other.tar_bytes
        return same and bytes(self.keys) == bytes(other.keys) and all(np.array_equal(a, b) for a, b in tables)

    def key(self, sample: int) -> str:
        """Key of a sample."""
        start = int(self.key_ends[sample - 1]) if sample else 0
        return bytes(self.keys[start : int(self.key_ends[sample])]).decode(errors="replace")

    def members(self, sample: int) -> Members:
        """Extension -> (offset, size) of a sample.

        Raises:
            ShardError: a place outside the tar.
        """
        found = {}
        for extension, offset, size in zip(
            self.extensions, self.offsets[sample].tolist(), self.sizes[sample].tolist(), strict=True
        ):
            if offset < 0:
                continue
            if size < 0 or offset + size > self.tar_bytes:
                raise ShardError(f"the index places {self.key(sample)}.{extension} outside its tar")
            found[extension] = (offset, size)
        return found


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename: a reader sees the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
