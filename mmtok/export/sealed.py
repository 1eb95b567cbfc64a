"""`bundle.json`, which has the sha256 of each file of a bundle; and a look at it wherever some of them are read.

The look is at the files in use alone: `mmtok verify` looks at all, and at what they compute.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmtok.schema import read_json

MANIFEST = "bundle.json"
VERSION = 1


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file of a folder but the list itself, with its sha256 and size."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != MANIFEST)
    return {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files}


def sha256(file: Path) -> str:
    """Of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def changed(path: Path, facts: Mapping[str, Any]) -> str:
    """What became of a file since the manifest was written, in words; "" for nothing."""
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != facts["bytes"]:
        return f"{path.name} has {path.stat().st_size:,} bytes, and had {facts['bytes']:,}"
    return "" if sha256(path) == facts["sha256"] else f"{path.name} was changed: its sha256 is another"


def refuse_changed(folder: str | Path, names: Iterable[str]) -> None:
    """Refuse a bundle of which files in use are not as they were written; other folders pass.

    Args:
        folder: which may be a bundle.
        names: of the files that are going to be read. Whoever reads one that is missing says so.

    Raises:
        ValueError: names the file, and how to see the rest.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        return
    verify = f"See all of it with: mmtok verify {shlex.quote(str(folder))}; then export or fetch it anew"
    try:
        known = read_json(folder / MANIFEST)["files"]
        said = [changed(folder / name, known[name]) for name in names if name in known and (folder / name).is_file()]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / MANIFEST} is damaged ({error}). {verify}.") from error
    if wrong := next(filter(None, said), None):
        raise ValueError(f"{folder} is damaged: {wrong}. {verify}.")
