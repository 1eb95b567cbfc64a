"""What a source of samples is: a list of entries that can be read one at a time, and where they come from."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "dev": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""Names of folders that are splits, and the sets they go to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sample of a source, not read yet."""

    key: str
    """Name of the sample, unique in the source; the writer replaces what a key cannot hold."""
    group: str
    """The photograph (recording, speaker) it was made from. A group is never divided between sets."""
    read: Callable[[], dict[str, bytes]]
    """Fetches its parts: extension -> bytes."""
    label: str | None = None
    """Name of its class."""
    split: str | None = None
    """The set the source itself puts it in: train, val or test."""


@dataclass(frozen=True)
class Wanted:
    """What of a source is taken, and how the names of its files are read."""

    kind: str | None = None
    """"images", "audio", "text" or "vectors"; None takes whichever the source holds more of."""
    names: str | None = None
    """A pattern for the names of its files, or the name of a data set whose pattern is known: see `naming.py`."""
    split_by: str | None = None
    """"file" or "speaker": what is never divided between sets; None leaves it to the names."""
    column: str | None = None
    """Of a table, the column of vectors or texts; None takes the usual name that is there: see `rows.py`."""
    key_column: str | None = None
    """Of a table, the column of keys."""
    label_column: str | None = None
    """Of a table, the column of classes."""
    keys: str | None = None
    """File with the keys of a .npy, one a line."""


ANYTHING = Wanted()


@dataclass
class Source:
    """Where samples come from. A subclass fills `provenance` and writes `entries`."""

    provenance: dict[str, Any] = field(default_factory=dict)
    """Goes to the manifest as it is: kind, name, version, sha256, licence."""
    kind: str = "images"
    """What its samples are, once `entries` was asked for."""
    remarks: list[str] = field(default_factory=list)
    """Lines about it that a person should read, once `entries` was asked for."""

    def entries(self) -> list[Entry]:
        """Every sample, in an order that is the same on every machine.

        Raises:
            ValueError: the source cannot be had (offline, absent, damaged); says what to do instead.
        """
        raise NotImplementedError

    def companions(self, taken: Mapping[str, str]) -> dict[str, bytes]:
        """Files that stand beside the sets: name -> content.

        Args:
            taken: key of every entry that became samples -> its set.
        """
        return {}

    def close(self) -> None:
        """Let go of open files."""


def unique_keys(names: Sequence[str]) -> list[str]:
    """File names -> keys: without the extension, except where two differ in nothing else.

    >>> unique_keys(["cat/1.jpg", "cat/2.jpg", "cat/2.png"])
    ['cat/1', 'cat/2.jpg', 'cat/2.png']
    """
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    counts = Counter(stems)
    return [stem if counts[stem] == 1 else name for name, stem in zip(names, stems, strict=True)]


def fraction_of(group: str) -> float:
    """A number in [0, 1) that depends on the name alone: the place of a group in every split of every build."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:7], "big") / 2**56


def file_sha256(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
