"""What a folder of codes is made from, and how: all processes that write into it must agree on it."""

from __future__ import annotations

import errno
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.manifest import MANIFEST
from datamodules.shardindex import write_atomically
from mmtok.export.token_spec import FILE as TOKEN_SPEC

PLAN = "tokens.json"
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
"""What file systems without hard links say."""
PATIENCE = 2.0
"""Seconds for which a plan may be half written: only where there are no hard links."""


@dataclass(frozen=True)
class Plan:
    """From what a set of codes is made, and how: what all processes that write into it must agree on."""

    tokenizer: str
    """As it was named."""
    fingerprint: str
    spec_sha256: str
    source: str
    """Name of the shard set."""
    source_fingerprint: str
    """Of its manifest."""
    size: str
    """What was done to pictures: "own", "fit" or a side."""
    batch: int
    """Decides with whom an item is computed, so the last bits of its latents."""
    budget: str | int | None
    keep: tuple[str, ...]
    """Members of the source that go along."""

    def claim(self, folder: Path) -> None:
        """Write the plan, or find that it is that of the folder.

        Raises:
            ValueError: the folder is for something else; names what differs.
        """
        text = json.dumps(asdict(self), indent=1) + "\n"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / PLAN
        if not path.exists():
            if litter := next(folder.glob("*.tar"), None):
                raise ValueError(f"{folder} holds {litter.name} already, and no {PLAN}. Give another folder.")
            draft = folder / f".{PLAN}.{secrets.token_hex(8)}"  # processes of several machines may share an id
            write_atomically(draft, text.encode())
            try:
                _take(draft, path)  # the first of several that begin at once has the folder
                return
            except (FileExistsError, FileNotFoundError):  # the draft is not there where a whole set was tidied up
                pass
            finally:
                draft.unlink(missing_ok=True)
        found, wanted = _read(path), json.loads(text)
        where = ("tokenizer", "source")  # another path to the same things changes nothing
        differ = [name for name in wanted if found.get(name) != wanted[name] and name not in where]
        if differ:
            said = ", ".join(f"{name} {found.get(name)!r} there and {wanted[name]!r} here" for name in differ)
            raise ValueError(f"{folder} is of another call: {said}. Give the same options, or another folder.")


def refuse_unfinished(folder: Path) -> None:
    """Raise a ValueError where a job of tokenizing has not written its manifest yet."""
    if not (folder / PLAN).is_file() or (folder / MANIFEST).is_file():
        return
    found = _read(folder / PLAN)
    raise ValueError(
        f"{folder} holds codes of which some are not written yet, or no task has found all: it has no {MANIFEST}. The "
        f"same command finishes it: mmtok tokenize {found.get('tokenizer')} SHARDS {folder}, of the shards "
        f"{found.get('source')}."
    )


def tidy(folder: Path) -> None:
    """Remove what killed processes left beside the files that stand once in a folder.

    The caller has the lock of the manifest. Whoever claims the folder at this moment finds the plan.
    """
    for name in (PLAN, TOKEN_SPEC, MANIFEST):
        for litter in folder.glob(f".*{name}.*"):
            if litter.suffix != ".lock":  # the caller's own
                litter.unlink(missing_ok=True)


def _take(draft: Path, path: Path) -> None:
    """Give a draft its name, if nobody has it.

    Raises:
        FileExistsError: somebody has.
        OSError: the folder cannot be written.
    """
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Not whole at once: who reads it meanwhile waits. A plan that a kill left empty has nothing beside it yet.
        with path.open("xb") as file:
            file.write(draft.read_bytes())
            file.flush()
            os.fsync(file.fileno())


def _read(path: Path) -> dict[str, Any]:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError(f"a mapping is expected, and it is {type(found).__name__}")
            return found
        except ValueError as error:
            if time.monotonic() > until:
                raise ValueError(f"{path} is damaged: {error}. Remove the folder and begin anew.") from error
        time.sleep(0.05)
