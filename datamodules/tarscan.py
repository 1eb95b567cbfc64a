"""Reads the headers of a tar, and nothing else: which samples it holds, where, and what is wrong with it.

Own parser, because `tarfile` takes a damaged header in the middle for the end of the archive, without a word. Members
are never written anywhere, so a path with `..` can do no harm here; it is refused all the same, since keys become file
names later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from datamodules.shardindex import MAX_EXTENSIONS, Members, ShardIndex

BLOCK = 512
MAX_EXTENDED_HEADER = 1 << 20
"""Bytes of a pax or GNU long name header: a path, never more."""
MAX_NAMED = 1000
"""Problems kept by name; the rest is counted."""

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> content; shorter at the end of the file."""


class Problem(NamedTuple):
    name: str
    """The shard, or the member in it."""
    reason: str


class TarDamage(ValueError):
    """The archive cannot be followed any further."""


@dataclass
class Scan:
    """What a tar holds."""

    samples: list[tuple[str, Members]] = field(default_factory=list)
    refused: list[Problem] = field(default_factory=list)
    """Members that are not taken: named up to MAX_NAMED."""
    refused_count: int = 0
    damage: str = ""
    """Why reading stopped early; empty for a whole tar. Complete samples before the damage are kept."""

    def index(self, tar_bytes: int) -> ShardIndex:
        """The index of what was found."""
        index = ShardIndex.build(self.samples, tar_bytes)
        index.notes.update({"damage": self.damage, "refused": self.refused_count})
        return index

    def refuse(self, name: str, reason: str) -> None:
        """Count a member that is not taken."""
        self.refused_count += 1
        if len(self.refused) < MAX_NAMED:
            self.refused.append(Problem(name, reason))


class _Member(NamedTuple):
    path: str
    kind: bytes
    offset: int
    size: int


def scan_file(path: Path) -> Scan:
    """The samples of a tar on disk."""
    with path.open("rb") as file:
        return scan(lambda at, size: os.pread(file.fileno(), size, at))


def scan(read_at: ReadAt) -> Scan:
    """The samples of a tar, by WebDataset's rule: neighbours with one path up to the first dot of the file name."""
    found, keys, extensions = Scan(), set[str](), set[str]()
    key, members = "", Members()

    def close_sample() -> None:
        if not members:
            return
        if key in keys:
            found.refuse(key, "the key stands in this shard already: a key names one sample")
        else:
            keys.add(key)
            found.samples.append((key, members))

    try:
        for member in _members(read_at):
            reason, name, extension = _place(member)
            if reason:
                found.refuse(member.path, reason)
                continue
            if not extension:
                continue
            if name != key:
                close_sample()
                key, members = name, {}
            if extension in members:
                found.refuse(member.path, "a second member of that name in one sample")
            elif extension not in extensions and len(extensions) == MAX_EXTENSIONS:
                found.refuse(member.path, f"more than {MAX_EXTENSIONS} extensions in one shard")
            else:
                extensions.add(extension)
                members[extension] = (member.offset, member.size)
    except TarDamage as damage:
        found.damage = str(damage)
        if members:  # what follows is lost, so nobody knows whether this sample was complete
            found.refuse(key, "last sample before the damage: it may lack members")
        return found
    close_sample()
    return found


# Key up to the first dot of the file name, extension after it ("a.b.jpg" is "a" and "b.jpg"), as WebDataset splits.
_SPLIT = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


def _place(member: _Member) -> tuple[str, str, str]:
    """(why it is refused, key, extension) of a member; no extension for one that is skipped silently."""
    path = member.path
    if member.kind == b"5":
        return "", "", ""
    if member.kind not in (b"0", b"\0", b"7"):
        what = {b"1": "a hard link", b"2": "a symbolic link"}.get(member.kind, f"a special file (type {member.kind!r})")
        return f"{what} is never followed", "", ""
    if "\0" in path or "\\" in path or path.startswith("/") or ".." in path.split("/") or re.match(r"[A-Za-z]:", path):
        return "the path leads out of the archive", "", ""
    path = path.removeprefix("./")
    if path.startswith("__") and path.endswith("__"):
        return "", "", ""  # WebDataset's own notes
    match = _SPLIT.fullmatch(path)
    if not match:
        return "the file name has no key and extension", "", ""
    return "", match[1], match[2].lower()


def _members(read_at: ReadAt) -> Iterator[_Member]:
    at, path, size = 0, "", -1
    while True:
        header = read_at(at, BLOCK)
        if not header.strip(b"\0") and len(header) == BLOCK:
            return  # the mark of the end
        member = _header(header, at)
        if size >= 0:
            member = member._replace(size=size)
        end = at + BLOCK + member.size
        if len(read_at(end - 1, 1)) != 1:
            raise TarDamage(f"cut off inside '{path or member.path}' at byte {at}")
        at = end + -end % BLOCK
        if member.kind in b"LKxg":
            if member.size > MAX_EXTENDED_HEADER:
                raise TarDamage(f"an extended header of {member.size} bytes at byte {member.offset - BLOCK}")
            content = read_at(member.offset, member.size)
            if member.kind == b"L":
                path = _text(content)
            elif member.kind == b"x":
                path, size = _pax(content, member.offset)
            continue
        yield member._replace(path=path) if path else member
        path, size = "", -1


def _header(header: bytes, at: int) -> _Member:
    if at == 0 and header[:2] in (b"\x1f\x8b", b"BZ", b"\xfd7", b"(\xb5"):
        raise TarDamage("compressed: samples are read by their place in the tar, so unpack it to a plain .tar")
    if len(header) < BLOCK:
        raise TarDamage(f"no end mark: the file stops at byte {at + len(header)}")
    try:
        told = _number(header[148:156])
        size = _number(header[124:136])
    except ValueError as error:
        raise TarDamage(f"no tar header at byte {at}") from error
    if told != sum(header[:148]) + 8 * 32 + sum(header[156:]) or size < 0:
        raise TarDamage(f"no tar header at byte {at} (wrong checksum)")
    path, kind = _text(header[:100]), header[156:157]
    if header[257:263] == b"ustar\0" and header[345]:
        path = f"{_text(header[345:500])}/{path}"
    if kind in (b"0", b"\0") and path.endswith("/"):
        kind = b"5"  # how the oldest tars write a directory
    return _Member(path, kind, at + BLOCK, size if kind not in b"123456" else 0)


def _number(field_: bytes) -> int:
    if field_[0] & 0x80:  # base 256, for sizes above 8 GiB
        return int.from_bytes(field_[1:], "big") if field_[0] == 0x80 else -1
    return int(field_.split(b"\0")[0].strip() or b"0", 8)


def _text(field_: bytes) -> str:
    return field_.split(b"\0")[0].decode(errors="surrogateescape").encode(errors="replace").decode()


def _pax(content: bytes, at: int) -> tuple[str, int]:
    """Path and size of an extended header: lines of 'length key=value'."""
    path, size = "", -1
    while content:
        head, _, _ = content.partition(b" ")
        if not head.isdigit() or not len(head) < int(head) <= len(content):
            raise TarDamage(f"an unreadable extended header at byte {at}")
        key, _, value = content[len(head) + 1 : int(head) - 1].partition(b"=")
        content = content[int(head) :]
        if key == b"path":
            path = value.decode(errors="replace")
        elif key == b"size" and value.isdigit():
            size = int(value)
    return path, size
