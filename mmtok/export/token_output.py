"""What `mmtok tokenize` writes of a shard, who has the right to, and what it tells meanwhile."""

from __future__ import annotations

import fcntl
import glob
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

from datamodules.writer import ShardTar
from mmtok.codes import Codes
from mmtok.export.token_shards import CODES, RECORD, Record, stands, to_members
from mmtok.export.token_spec import TokenSpec
from mmtok.export.tokenize_units import LEFT, OURS, Unit

CLAIMED = 4
"""Shards of which it is decided ahead of the encoder who writes them."""


class Progress(NamedTuple):
    """What happened since the last one."""

    items: int = 0
    codes: int = 0
    bad: int = 0
    shards: int = 0
    wait: float = 0.0
    """Seconds for which the encoder had nothing to do."""
    seconds: float = 0.0
    failed: str = ""
    """Name of a shard, and why it was not written."""
    left: str = ""
    """Name of a shard that another process is writing."""


class Lock:
    """The right to write a shard, or the manifest. The system takes it back with the process."""

    def __init__(self, folder: Path, name: str, *, wait: bool = False) -> None:
        """Try to take it, or wait until its holder is done: then `mine` may still be wrong, where it took it away."""
        self.path = folder / f".{name}.lock"
        self._file = self.path.open("w")
        self.mine = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Not one that its last holder took away meanwhile.
            self.mine = os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except (BlockingIOError, FileNotFoundError):
            self.mine = False
        except OSError:  # a file system without locks: two writers give the same bytes
            pass

    def release(self) -> None:
        """Let others have it."""
        if self._file.closed:
            return
        with suppress(OSError):
            if self.mine:
                self.path.unlink()
        self._file.close()


class Output:
    """The codes of one shard, gathered in any order and written in that of the source."""

    def __init__(self, folder: Path, name: str, spec: TokenSpec) -> None:
        self.folder, self.name, self.spec, self.sha256 = folder, name, spec, spec.sha256
        self.samples: dict[int, tuple[str, dict[str, bytes]]] = {}
        self.bad: dict[int, tuple[str, str]] = {}
        self.codes = 0
        self.failed = ""
        self.lock = Lock(folder, name)
        self.done = self.lock.mine and stands(folder, name) is not None
        if self.lock.mine and not self.done:
            (folder / f"{name}{RECORD}").unlink(missing_ok=True)  # it says what is no longer so
            for file in folder.glob(
                f".{glob.escape(name)}.*.*.part"
            ):  # of a kill while a record or an index was written
                file.unlink(missing_ok=True)

    @property
    def wanted(self) -> bool:
        """Whether this process is to write the shard."""
        return self.lock.mine and not self.done and not self.failed

    def note(self, unit: Unit) -> None:
        """Take over what a unit says besides its signals."""
        self.samples |= unit.kept
        self.bad |= {number: (key, reason) for number, key, reason in unit.bad}
        self.failed = self.failed or unit.failed

    def add(self, codes: Codes, numbers: Sequence[int]) -> Progress:
        """The codes of samples with these numbers."""
        found = self.codes
        for item, number in enumerate(numbers):
            members = to_members(codes, item, self.spec, self.sha256)
            self.codes += int(codes.lengths[item]) * int((codes.ids[item, :, 0] >= 0).sum())
            self.samples[number][1].update(members)
        return Progress(items=len(numbers), codes=self.codes - found)

    def close(self) -> Progress:
        """Write tar, index and record."""
        try:
            if not self.lock.mine:
                return Progress(left=self.name)
            if self.failed:
                return Progress(failed=f"{self.name}: {self.failed}")
            if self.done:
                return Progress(shards=1)
            bad = tuple(self.bad[number] for number in sorted(self.bad))
            if not self.samples:
                return Progress(failed=f"{self.name}: no sample can be used. {bad[0][0]}: {bad[0][1]}")
            self._write(bad)
            return Progress(bad=len(bad), shards=1)
        finally:
            self.lock.release()

    def _write(self, bad: tuple[tuple[str, str], ...]) -> None:
        tar = ShardTar(self.folder / f"{self.name}.tar")
        try:
            for number in sorted(self.samples):
                key, members = self.samples[number]
                assert CODES in members, f"{key} was read and not encoded"
                tar.add(key, members)
            index, sha256 = tar.close()
        except BaseException:
            tar.discard()
            raise
        Record(len(self.samples), index.tar_bytes, sha256, self.codes, bad).save(self.folder, self.name)


class Claims:
    """The outputs of some shards, in order, each with its lock taken before anybody decodes for it."""

    def __init__(self, folder: Path, names: Sequence[str], spec: TokenSpec) -> None:
        self.folder, self.names, self.spec = folder, names, spec
        self.said = torch.zeros(len(names), dtype=torch.uint8).share_memory_()
        """(shards,) as `ShardUnits` reads it: 0 while nothing is decided, then `OURS` or `LEFT`."""
        self._outputs: list[Output] = []
        self._given = 0

    def next(self) -> Output:
        """The output of the next shard; behind the last one, one that nobody writes into."""
        for name in self.names[len(self._outputs) : self._given + 1 + CLAIMED]:
            output = Output(self.folder, name, self.spec)
            self.said[len(self._outputs)] = OURS if output.wanted else LEFT
            self._outputs.append(output)
        self._given += 1
        return self._outputs[min(self._given, len(self._outputs)) - 1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for output in self._outputs:
            output.lock.release()
