"""What the names of files say: class, speaker, set. A pattern a data set; a user's own where none is known."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from datamodules.build.source import SPLITS, Entry, Wanted


@dataclass(frozen=True)
class Naming:
    """How to read the names of a data set."""

    pattern: str
    """Searched in "/" and each path without its extension; the groups it may have are `label`, `speaker`, `group` (what
    is never divided between sets, if not the file) and `split`."""
    split_by: str = "file"
    """What is held out where nobody says: "file" (or `group`), or "speaker"."""
    test: str = ""
    """Of names that are the data set's own test set, which holds where files are split, not speakers."""
    default_label: str | None = None
    """Of files whose name has none."""

    def matches(self, path: str) -> bool:
        """Whether the name of a file is of this data set."""
        return re.search(self.pattern, _stem(path)) is not None

    def apply(self, entry: Entry, path: str, split_by: str | None) -> Entry:
        """The entry with what its file's name says.

        Raises:
            ValueError: the name does not match, or says no speaker where one is asked for.
        """
        found = re.search(self.pattern, _stem(path))
        if found is None:
            raise ValueError(
                f"names={self.pattern} does not match '{_stem(path)}'. Give a pattern that fits all files."
            )
        said = {name: value for name, value in found.groupdict().items() if value}
        by = split_by or self.split_by
        if by == "speaker" and "speaker" not in said:
            raise ValueError(f"split_by=speaker: the name '{_stem(path)}' says no speaker (names={self.pattern}).")
        group = f"speaker:{said['speaker']}" if by == "speaker" else said.get("group", entry.group)
        split = SPLITS.get(said.get("split", ""), entry.split)
        if by == "file" and self.test and re.search(self.test, _stem(path)):
            split = "test"
        return replace(entry, group=group, split=split, label=said.get("label", self.default_label or entry.label))


NAMINGS = {
    "fsdd": Naming(r"(?:^|/)(?P<label>\d)_(?P<speaker>[a-z]+)_\d+$", split_by="speaker", test=r"_[0-4]$"),
}
"""Data sets that are recognised where every file is named as in them."""


def naming_of(names: Collection[str], wanted: Wanted) -> Naming | None:
    """The naming that a user gave, by name or as a pattern, or one that all names follow."""
    if wanted.names:
        if wanted.names in NAMINGS:
            return NAMINGS[wanted.names]
        try:
            groups = re.compile(wanted.names).groupindex
        except re.error as error:
            raise ValueError(f"names={wanted.names} is no regular expression: {error}.") from error
        return Naming(wanted.names, split_by="speaker" if "speaker" in groups else "file")
    return next((one for one in NAMINGS.values() if all(map(one.matches, names))), None)


def _stem(path: str) -> str:
    return "/" + str(PurePosixPath(path.lstrip("/")).with_suffix(""))
