"""Promises of a folder that was exported, looked at one after the other: what all kinds of folders have of it.

Files are as `bundle.json` has them, nothing else could be run, and what another process finds where mmtok is absent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError

from mmtok.export import clean
from mmtok.export.sealed import MANIFEST, VERSION, changed
from mmtok.schema import read_json

PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz"}
"""Endings of files that could run code when they are read."""
ABSENT = (
    "mmtok",
    "datamodules",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
    "omegaconf",
    "wandb",
    "webdataset",
)
"""Packages that the clean process lacks."""
PATIENCE = 1800.0
"""Seconds that the clean process may take."""

F = TypeVar("F")
"""A folder, and what is read of it once."""


class Broken(NamedTuple):
    """A promise that is not kept."""

    promise: str
    """Its name: "files", "weights", "golden codes", ..."""
    reason: str
    """What was found, and where."""

    def __str__(self) -> str:
        return f"{self.promise}: {self.reason}"


Check = Callable[[F], Iterator[str]]
Step = tuple[tuple[str, Check[F]], ...]
"""Promises by name, which build on those of the steps before."""


def look_at(
    folder: F, steps: Sequence[Step[F]], say: Callable[[str], None], none: Callable[[str], bool] = lambda promise: False
) -> list[Broken]:
    """The broken promises of the first step that has some.

    Args:
        folder: what the checks take.
        steps: in order.
        say: called with a line for each promise that is kept.
        none: whether a promise was not made at all.
    """
    for step in steps:
        broken = []
        for promise, check in step:
            found = [Broken(promise, reason) for reason in _looked(check, folder)]
            broken += found
            if not found:
                say(f"{promise}: " + ("none" if none(promise) else "kept"))
        if broken:
            return broken
    return []


def _looked(check: Check[F], folder: F) -> list[str]:
    try:
        return list(check(folder))
    except KeyError as error:
        return [f"a file lacks {error}"]
    except (ValueError, TypeError, IndexError, AttributeError, OSError, RuntimeError, SafetensorError) as error:
        return [str(error).strip() or type(error).__name__]


def manifest_kept(folder: Path, needed: Sequence[str]) -> Iterator[str]:
    """What differs from `bundle.json`."""
    file = folder / MANIFEST
    if not file.is_file():
        yield f"there is no {MANIFEST}, so nothing says what the files should be"
        return
    content = read_json(file)
    if content["version"] != VERSION:
        yield f"{MANIFEST} has version {content['version']}, and this mmtok reads {VERSION}"
        return
    listed: Mapping[str, Any] = content["files"]
    yield from (f"{name} is not in {MANIFEST}, and every bundle has one" for name in needed if name not in listed)
    for name, facts in listed.items():
        if Path(name).name != name:
            yield f"{name} is missing"
        elif said := changed(folder / name, facts):
            yield said


def strangers(folder: Path) -> Iterator[str]:
    """Files that could be run and that nobody vouches for."""
    file = folder / MANIFEST
    listed = read_json(file)["files"] if file.is_file() else ()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix in PICKLES:
            yield f"{name} is a pickle, or can hold one, which could run anything when it is read"
        elif listed and name not in listed and path.suffix in (".py", ".pt2", ".safetensors", ".so"):
            yield f"{name} is not in {MANIFEST}"


def where_mmtok_is_absent(
    folder: Path, what: str, absent: Sequence[str], take: Callable[[Path], Any]
) -> tuple[Any, str]:
    """What transformers makes of a folder in a process of its own, and "" or what went wrong.

    Args:
        folder: of the export.
        what: is computed, a key of `clean.COMPUTED`.
        absent: further packages that the process lacks.
        take: reads its result.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = Path(scratch) / "result"
        command = [sys.executable, "-I", clean.__file__, what, str(folder.resolve()), str(result)]
        # Nothing is fetched, and no copy of this bundle's code that lay in a cache takes its place.
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": scratch, "OMP_NUM_THREADS": "1"}
        command.append(",".join([*ABSENT, *sorted(absent)]))
        try:
            done = subprocess.run(
                command, env=environment, cwd=scratch, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"where mmtok is absent, transformers did not finish within {PATIENCE:g} s"
        if done.returncode:
            said = (done.stdout.strip() or done.stderr.strip() or "it ended without a word").splitlines()[-1]
            return None, f"where mmtok is absent, transformers cannot use it: {said}"
        return take(result), ""
