"""Names of the files a verb writes, checked before anything is computed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def outputs(files: Sequence[str], folder: Path, name: Callable[[Path], str]) -> dict[Path, Path]:
    """Input -> output for each file.

    Raises:
        ValueError: an input is missing, or two inputs would be written to one place.
    """
    targets: dict[Path, Path] = {}
    for file in map(Path, files):
        if file.is_dir():
            raise ValueError(f"{file} is a folder. Name its files, for example {file}/*.")
        if not file.is_file():
            raise ValueError(f"there is no file {file}.")
        target = folder / name(file)
        if target in targets.values():
            other = next(source for source, taken in targets.items() if taken == target)
            raise ValueError(f"{other} and {file} would both be written to {target}. Give them in two calls.")
        targets[file] = target
    return targets


def claim(paths: dict[Path, Path], folder: Path, overwrite: bool) -> None:
    """Make the folder, and refuse to write over what exists unless asked to.

    Raises:
        ValueError: a file exists.
    """
    refuse_existing(paths, overwrite)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_existing(paths: dict[Path, Path], overwrite: bool) -> None:
    """Refuse to write over what exists unless asked to; the folder is left for who writes.

    Raises:
        ValueError: a file exists.
    """
    existing = [target for target in paths.values() if target.exists()]
    if existing and not overwrite:
        raise ValueError(f"{existing[0]} exists already. Give --overwrite, or another folder.")


def each(paths: dict[Path, Path], convert: Callable[[Path, Path], str]) -> int:
    """Convert file after file, past those that cannot be used; a full disk stops it.

    Args:
        paths: input -> output.
        convert: writes one, and gives what to say of it.

    Returns:
        The exit status.

    Raises:
        ValueError: the only file cannot be used.
    """
    refused = []
    for source, target in paths.items():
        try:
            print(f"{source} -> {target}{convert(source, target)}")
        except ValueError as error:
            if len(paths) == 1:
                raise
            refused.append(source)
            print(f"mmtok: {error}", file=sys.stderr)
    if refused:
        rest = len(paths) - len(refused)
        print(f"mmtok: {len(refused)} of {len(paths)} files could not be used; {rest} are written.", file=sys.stderr)
    return 2 if refused else 0
