"""A checksum inside the file it is of. A checkpoint is a zip archive, and a zip archive may end in a comment.

One file, so that one rename publishes both and a copy takes both along; every reader of zip archives, torch's among
them, passes over a comment. torch writes a CRC of each tensor into the archive, and does not look at it when reading.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from threading import Thread
from typing import IO

_MARK = b"mmtok sha256 "
_COMMENT = len(_MARK) + 64
_LENGTH = 2
"""Bytes of the comment's length, the last field of an archive without a comment."""


def seal(file: IO[bytes]) -> None:
    """Write the checksum of a finished archive behind it, and return when all of it is on the disk.

    Args:
        file: open for reading and writing, its position anywhere.

    Raises:
        OSError: the disk is full, or fails.
    """
    file.flush()
    failed: list[OSError] = []
    disk = Thread(target=_sync, args=(file, failed))
    disk.start()  # the disk works while the sum is made
    file.seek(0, os.SEEK_END)
    content = file.tell() - _LENGTH
    digest = _digest(file, content)
    disk.join()
    if failed:
        raise failed[0]
    file.seek(content)
    file.write(_COMMENT.to_bytes(_LENGTH, "little") + _MARK + digest)
    file.flush()
    os.fsync(file.fileno())


def broken_seal(path: Path) -> bool:
    """Whether a file carries a checksum that is not its own. One without a checksum is not looked into."""
    carried = carried_checksum(path)
    if carried is None:
        return False
    with path.open("rb") as file:
        return _digest(file, path.stat().st_size - _COMMENT - _LENGTH) != carried.encode()


def carried_checksum(path: Path) -> str | None:
    """The checksum that a file carries, whether or not it fits; None where there is none."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) < _COMMENT + _LENGTH:
            return None
        file.seek(-_COMMENT, os.SEEK_END)
        comment = file.read()
    return comment.removeprefix(_MARK).decode("ascii", "replace") if comment.startswith(_MARK) else None


def _digest(file: IO[bytes], size: int) -> bytes:
    """sha256 of the first `size` bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        part = file.read(min(size, 1 << 20))
        if not part:
            break
        digest.update(part)
        size -= len(part)
    return digest.hexdigest().encode()


def _sync(file: IO[bytes], failed: list[OSError]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        failed.append(error)
