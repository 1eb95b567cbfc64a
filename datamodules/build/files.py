"""File names to entries: which files are content, and what their folders and names say about them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import PurePosixPath

from datamodules.build.kinds import KINDS
from datamodules.build.naming import Naming, naming_of
from datamodules.build.source import ANYTHING, SPLITS, Entry, Wanted, unique_keys

Read = Callable[[str], bytes]
"""Content of a file, by its name in the folder or archive."""


def kind_of(names: Collection[str], wanted: Wanted) -> str:
    """The kind of content to take: the one asked for, else the one of most files that no others stand beside.

    Raises:
        ValueError: no file is of any kind, or none of the one asked for.
    """
    counts = {name: sum(extension_of(file) in kind.extensions for file in names) for name, kind in KINDS.items()}
    asked = [wanted.kind] if wanted.kind else list(KINDS)
    kind = max(asked, key=lambda name: (counts[name] > 0 and not KINDS[name].companion, counts[name]))
    if not counts[kind]:
        known = "; ".join(f"{KINDS[name].noun} ({', '.join(KINDS[name].extensions)})" for name in asked)
        raise ValueError(f"holds no {known} among its {len(names)} files")
    return kind


def file_entries(
    names: Collection[str], read: Read, kind: str, wanted: Wanted = ANYTHING, naming: Naming | None = None
) -> list[Entry]:
    """Entries of the files that are content of a kind.

    Folders named train, val (valid, validation) and test, wherever they stand first on the way to the files, are the
    sets. The class of a file is the folder it lies in. A text file of the same name beside it is its caption.
    What their names say beside (`naming`, else what `wanted` asks for or all of them follow) goes before.
    """
    content = sorted(name for name in names if extension_of(name) in KINDS[kind].extensions)
    depth = split_depth([PurePosixPath(name).parts[:-1] for name in content])
    every = set(names)
    keys = unique_keys(content)
    entries = [_entry(name, key, depth, every, read) for name, key in zip(content, keys, strict=True)]
    naming = naming or naming_of(content, wanted)
    if naming is None:
        if wanted.split_by == "speaker":
            raise ValueError("split_by=speaker needs names=PATTERN, with a group (?P<speaker>...) in it.")
        return entries
    return [naming.apply(entry, name, wanted.split_by) for entry, name in zip(entries, content, strict=True)]


def _entry(name: str, key: str, depth: int | None, names: set[str], read: Read) -> Entry:
    path = PurePosixPath(name)
    reads = {extension_of(name): name}
    caption = str(path.with_suffix(".txt"))
    if caption in names and caption != name:
        reads["txt"] = caption
    split, classes = None, path.parts[:-1]
    if depth is not None:
        split, classes = SPLITS[path.parts[depth].lower()], path.parts[depth + 1 : -1]
    label = classes[-1] if classes else None
    return Entry(key, group=key, read=partial(read_files, read, reads), label=label, split=split)


def extension_of(name: str) -> str:
    """Without the dot, in lower case."""
    return PurePosixPath(name).suffix[1:].lower()


def read_files(read: Read, reads: dict[str, str]) -> dict[str, bytes]:
    """Extension -> bytes of the named files."""
    return {extension: read(name) for extension, name in reads.items()}


def split_depth(folders: list[tuple[str, ...]]) -> int | None:
    """How deep the folders named train, val and test stand; None where not every file lies in one of them.

    >>> split_depth([("data", "train", "cat"), ("data", "test", "cat")])
    1
    """
    for depth in range(min(map(len, folders))):
        if all(parts[depth].lower() in SPLITS for parts in folders):
            return depth
    return None
