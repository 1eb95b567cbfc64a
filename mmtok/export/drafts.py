"""Folders that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtok.processes import born, machine

_DRAFT = re.compile(r"\.([0-9a-f]{12})-(\d+)-(\d+)\.[^.]*\.(partial|replaced)$")
"""How a draft ends: the machine and the process that writes it, and what keeps two of one process apart."""


@contextmanager
def replaced(target: Path, marker: str, overwrite: bool, kind: str = "") -> Iterator[Path]:
    """A new folder beside the target, which takes its place when the block ends, and is removed when it raises.

    Each call has a draft of its own, so that two at once do not write into one. Drafts of processes that were killed on
    this machine are removed.

    Args:
        target: the folder; what is above it is made.
        marker: a file that every folder of this kind has, such as "bundle.json"; others are never replaced.
        overwrite: replace one that exists.
        kind: what people call such a folder; by default as the marker is called.

    Raises:
        ValueError: the target is taken.
        OSError: it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_dead(target)
    refuse_taken(target, marker, overwrite, kind)
    prefix = f"{target.name}.{_here()}-{os.getpid()}-{max(born(os.getpid()), 0)}."
    draft = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=target.parent))
    try:
        yield draft
        refuse_taken(target, marker, overwrite, kind)  # by another process, meanwhile
        _open_to_others(draft)
        _publish(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_dead(target: Path) -> None:
    """Clear what killed processes of this machine left beside a target; whether those of others live is not known.

    What stood at the target is put back where it was killed between taking that away and putting the new one there.
    """
    for path in target.parent.iterdir():
        found = _DRAFT.fullmatch(path.name.removeprefix(target.name)) if path.name.startswith(target.name) else None
        if found is None or not found[1].strip("0") or found[1] != _here() or born(int(found[2])) == int(found[3]):
            continue
        if found[4] == "replaced" and not target.exists():
            os.replace(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _here() -> str:
    """This machine, as part of a name; zeros where there is no telling."""
    known = machine()
    return hashlib.sha256(known.encode()).hexdigest()[:12] if known else "0" * 12


def refuse_taken(target: Path, marker: str, overwrite: bool, kind: str = "") -> None:
    """Raise a ValueError where a folder must not be replaced."""
    kind = kind or Path(marker).stem
    if not target.exists():
        return
    if not target.is_dir() or (any(target.iterdir()) and not (target / marker).is_file()):
        raise ValueError(f"{target} exists and is no {kind}. Give another folder.")
    if (target / marker).is_file() and not overwrite:
        raise ValueError(f"{target} is a {kind} already. Give --overwrite, or another folder.")


def _open_to_others(draft: Path) -> None:
    """mkdtemp makes folders that only their owner may read; what is published is as `mkdir` makes it."""
    mask = os.umask(0)
    os.umask(mask)
    draft.chmod(0o777 & ~mask)


def _publish(draft: Path, target: Path) -> None:
    """Rename the draft, and what stood there before back where that fails."""
    old = draft.with_suffix(".replaced")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(draft, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
