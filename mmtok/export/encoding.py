"""Shards of pictures or sounds -> shards of codes, on one device: the encoder alone, and no step waits for another.

Processes decode ahead, this one encodes, a thread turns codes into members and writes. A shard appears whole (tar and
index, then its record) or not at all, and depends on nothing but its samples and the options: a job that is killed and
started again leaves the same bytes as one that was not.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from datamodules.shards import ShardSet
from datamodules.stream import loader
from datamodules.writer import ShardTar
from mmtok.codes import Codes
from mmtok.export.bundle import spec_of
from mmtok.export.token_shards import CODES, RECORD, Plan, Record, stands, to_members
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.token_spec import TokenSpec
from mmtok.export.tokenize_input import Gatherer, Preparer, ShardUnits, Unit
from mmtok.loading import load
from mmtok.tokenizers import pixels
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.chunks import LONG, Chunked
from mmtok.tokenizers.exported import PARTS, Absent, leave_out

AHEAD = 4
"""Batches whose codes wait to be turned into members."""


@dataclass(frozen=True)
class Settings:
    """What is tokenized, with what, and how."""

    tokenizer: str
    shards: str
    out: Path
    size: str = "own"
    """Of pictures: "own", "fit" for what the tokenizer was trained on, or a side."""
    batch: int = 32
    """Pictures of the trained size, or sounds of ten seconds, in a batch."""
    budget: int | None = None
    """Levels to keep, of a quantizer that has several."""
    keep: tuple[str, ...] = ("txt", "cls")
    """Members of the source that go along, where there are any."""
    raw: bool = False
    """The weights as trained instead of their average."""
    workers: int = 1
    """Processes that decode for each device; 0 decodes between the batches."""
    cache_dir: str | None = None
    """Folder for remote shards."""

    def open(self) -> ShardSet:
        """The source."""
        return ShardSet.open(self.shards, cache_dir=self.cache_dir)


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


class Encoder:
    """A tokenizer without its decoder, on a device."""

    def __init__(self, tokenizer: Tokenizer, device: str, budget: int | None = None) -> None:
        """Take the tokenizer over: its decoder is gone afterwards."""
        self.device, self.budget = device, budget
        self.tokenizer = tokenizer.to(device).optimize()
        self.chunked = self._chunks()  # while there is a decoder, at which chunks look too
        leave_out(self.tokenizer, "encoder")
        leave_out(tokenizer, "encoder")

    def _chunks(self) -> Chunked | None:
        """For sounds that would take too much memory; only where chunks give the codes of the whole."""
        whole = not isinstance(self.tokenizer.networks.decoder, Absent)
        if not whole or not isinstance(self.tokenizer, AudioTokenizer) or not Chunked.possible(self.tokenizer):
            return None
        chunked = Chunked(self.tokenizer)
        return None if chunked.approximate else chunked

    def __call__(self, x: torch.Tensor, lengths: torch.Tensor | None) -> Codes:
        """A batch -> its codes, on the CPU."""
        x = x.to(self.device, non_blocking=True)
        if lengths is None:
            return self.tokenizer.encode(pixels.to_unit(x), budget=self.budget).to("cpu")
        assert isinstance(self.tokenizer, AudioTokenizer)
        if self.chunked and len(x) == 1 and x.shape[2] > LONG * self.tokenizer.config.sample_rate:
            return self.chunked.encode(x, budget=self.budget).to("cpu")
        return self.tokenizer.encode(x, lengths.to(self.device), budget=self.budget).to("cpu")


def open_tokenizer(settings: Settings) -> tuple[Tokenizer, TokenSpec]:
    """The tokenizer, and its contract: a bundle's own, or what its export would say.

    Raises:
        ValueError: there is none, it has no codes or no encoder, or the bundle's files do not belong together.
    """
    tokenizer = load(settings.tokenizer, raw=settings.raw)
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(f"{settings.tokenizer} was trained without codes, so there are none to write.")
    encoder = tokenizer.networks.encoder
    if isinstance(encoder, Absent):
        raise ValueError(f"{settings.tokenizer} was exported without its {PARTS['decoder'][0]}. Use a whole bundle.")
    own = Path(settings.tokenizer) / TOKEN_SPEC
    spec = TokenSpec.read(own) if own.is_file() else spec_of(tokenizer, "", {})
    if spec.fingerprint != tokenizer.fingerprint():
        raise ValueError(
            f"{own} is of the tokenizer {spec.fingerprint}, and the weights are {tokenizer.fingerprint()}."
        )
    tokenizer.kept_levels(1, settings.budget)  # refused now, and not in the first batch
    return tokenizer, spec


def plan_of(settings: Settings, tokenizer: Tokenizer, spec: TokenSpec, source: ShardSet) -> Plan:
    """What the folder of the codes remembers."""
    return Plan(
        tokenizer=settings.tokenizer,
        fingerprint=tokenizer.fingerprint(),
        spec_sha256=spec.sha256,
        source=source.name(2),
        source_fingerprint=source.manifest.fingerprint,
        size=settings.size,
        batch=settings.batch,
        budget=settings.budget,
        keep=settings.keep,
    )


class Lock:
    """The right to write a shard. The system takes it back with the process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f".{name}.lock"
        self._file = self.path.open("w")
        self.mine = True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not one that its last holder took away meanwhile.
            self.mine = os.path.samestat(self.path.stat(), os.fstat(self._file.fileno()))
        except (BlockingIOError, FileNotFoundError):
            self.mine = False
        except OSError:  # a file system without locks: two writers give the same bytes
            pass

    def release(self) -> None:
        """Let others have it."""
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
        if self.lock.mine and not self.done:  # it says what is no longer so
            (folder / f"{name}{RECORD}").unlink(missing_ok=True)

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


def encode_shards(settings: Settings, device: str, shards: Sequence[int], report: Callable[[Progress], None]) -> None:
    """Tokenize some shards, one after the other.

    Args:
        settings: as the folder's plan has them.
        device: where to compute.
        shards: numbers in the source.
        report: told what happened, now and then.

    Raises:
        ValueError: the tokenizer cannot be used.
        OSError: the folder cannot be written.
    """
    tokenizer, spec = open_tokenizer(settings)
    source = settings.open()
    prepare = Preparer.of(tokenizer, settings.size, settings.batch)
    encoder = Encoder(tokenizer, device, settings.budget)
    units = iter(loader(ShardUnits(source, shards, prepare, settings.keep), settings.workers))
    output: Output | None = None
    gather = Gatherer(prepare)
    with ThreadPoolExecutor(1) as thread:
        pending: deque[Future[Progress]] = deque()
        while True:
            begin = time.perf_counter()
            unit: Unit | None = next(units, None)
            ready = time.perf_counter()
            if unit is None:
                break
            if output is None:
                output = Output(settings.out, source.manifest.shards[unit.shard].name, spec)
            if output.wanted:
                output.note(unit)
                for batch in gather.gathered(unit):
                    codes = encoder(batch.x, batch.lengths)
                    pending.append(thread.submit(output.add, codes, batch.numbers))
            if unit.last:
                pending.append(thread.submit(output.close))
                output = None
            report(Progress(wait=ready - begin, seconds=time.perf_counter() - begin))
            while len(pending) > AHEAD:
                report(pending.popleft().result())
        for future in pending:
            report(future.result())
