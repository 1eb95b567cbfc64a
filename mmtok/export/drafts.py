"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(target: Path, marker: str, overwrite: bool) -> Iterator[Path]:
    """A new folder beside the target, which takes its place when the block ends, and is removed when it raises.

    Each call has a draft of its own, so that two at once do not write into one.

    Args:
        target: the folder; what is above it is made.
        marker: a file that every folder of this kind has, such as "bundle.json"; others are never replaced.
        overwrite: replace one that exists.

    Raises:
        ValueError: the target is taken.
        OSError: it cannot be written.
    """
    refuse_taken(target, marker, overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield draft
        refuse_taken(target, marker, overwrite)  # by another process, meanwhile
        _open_to_others(draft)
        _publish(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_taken(target: Path, marker: str, overwrite: bool) -> None:
    """Raise a ValueError where a folder must not be replaced."""
    kind = Path(marker).stem
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
