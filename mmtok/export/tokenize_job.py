"""A whole job of tokenizing: its part of the shards over the devices of this machine, and one manifest at the end.

Part i of n takes the shards i, i + n, ...; each device takes every so-manyth of those that do not stand yet. Nothing is
passed between parts: whoever finishes last finds all records and writes the manifest.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from datamodules.manifest import MANIFEST, Manifest
from datamodules.shardindex import write_atomically
from mmtok.export.encoding import Settings, encode_shards, open_tokenizer, plan_of
from mmtok.export.token_output import Lock, Progress
from mmtok.export.token_plan import tidy
from mmtok.export.token_shards import Record, finish, missing, stands
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.export.tokenize_input import Preparer
from mmtok.loading import check_device

EVERY = 10.0
"""Seconds between two lines of progress."""
Say = Callable[[str], None]


class Part(NamedTuple):
    """Which of how many parts of the shards a process takes."""

    number: int = 0
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """Read I/N: 3/16 is the fourth of sixteen.

        Raises:
            ValueError: it is no part.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match or not int(match[1]) < int(match[2]):
            raise ValueError(f"--part {text} is no part. Write I/N with I from 0 to N - 1, as 0/16.")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Part:
        """The part of a task of a SLURM array; the whole outside one.

        Raises:
            ValueError: the tasks of the array do not count through.
        """
        if "SLURM_ARRAY_TASK_ID" not in environment:
            return cls()
        task, count, first, last, step = (
            int(environment.get(f"SLURM_ARRAY_TASK_{name}") or default)
            for name, default in (("ID", 0), ("COUNT", 1), ("MIN", 0), ("MAX", 0), ("STEP", 1))
        )
        if (last - first) // step + 1 != count:  # --array=3,7: some tasks of another array, once more
            raise ValueError(
                f"this array has {count} tasks from {first} to {last}, so which part is whose cannot be told. Write "
                "it: --part $SLURM_ARRAY_TASK_ID/N, with N of the first array"
            )
        return cls((task - first) // step, count)


@dataclass
class Total:
    """What a job did."""

    shards: int = 0
    """Of its part."""
    stood: int = 0
    """That an earlier job had finished."""
    items: int = 0
    codes: int = 0
    failed: list[str] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)
    """Shard, key and reason of what could not be used, in its part, by earlier jobs too."""
    missing: int = 0
    """Shards of other parts that do not stand yet."""
    seconds: float = 0.0
    """Spent encoding."""


def tokenize(settings: Settings, devices: Sequence[str], part: Part, say: Say) -> Total:
    """Tokenize a part of a shard set on some devices, go on where an earlier job stopped.

    Args:
        settings: what, with what, to where.
        devices: a process for each; as torch names them.
        part: which shards.
        say: told what is going on, a line at a time.

    Raises:
        ValueError: the tokenizer, the shards, a device or the folder cannot be used.
        OSError: the folder cannot be written.
    """
    for device in devices:
        check_device(device)
    source, out = settings.open(), settings.out
    names = {number: one.name for number, one in enumerate(source.manifest.shards) if one.samples}
    tokenizer, spec = open_tokenizer(settings)
    _check(source.manifest.extensions, Preparer.of(tokenizer, settings.size, settings.batch), settings)
    plan = plan_of(settings, tokenizer, spec, source)
    plan.claim(out)
    write_atomically(out / TOKEN_SPEC, spec.to_json().encode())
    mine = list(names)[part.number :: part.parts]
    todo = [number for number in mine if stands(out, names[number]) is None]
    for number in set(mine) - set(todo):
        if (out / f".{names[number]}.lock").exists():  # of a process that was killed when its shard stood
            Lock(out, names[number]).release()
    total = Total(len(mine), len(mine) - len(todo))
    of = f"part {part.number} of {part.parts}: " if part.parts > 1 else ""
    say(f"{of}{len(mine)} shards, {total.stood} stand already; {', '.join(devices)}")
    if todo:  # a set of which something is missing again is none
        (out / MANIFEST).unlink(missing_ok=True)
    samples = sum(source.manifest.shards[number].samples for number in todo)
    watch = Watch(total, len(todo), samples, say)
    if todo:
        _run(settings, list(devices)[: len(todo)], todo, watch)
    total.seconds = time.perf_counter() - watch.began
    for number in mine:
        if record := Record.read(out, names[number]):
            total.bad += [(names[number], key, reason) for key, reason in record.bad]
    total.missing = len(missing(out, list(names.values()))) - len(total.failed)
    if not total.missing and not total.failed:
        _finish(out, source.manifest, list(names.values()))
    return total


def _finish(out: Path, source: Manifest, names: Sequence[str]) -> None:
    while not (lock := Lock(out, MANIFEST, wait=True)).mine:  # two that end at once, one after the other
        pass
    try:
        finish(out, source, names)
        tidy(out)
    finally:
        lock.release()


def _check(extensions: Sequence[str], prepare: Preparer, settings: Settings) -> None:
    if extensions and not {name.rpartition(".")[2] for name in extensions} & set(prepare.content):
        raise ValueError(
            f"{settings.shards} holds {', '.join(extensions)}, and {settings.tokenizer} is for {prepare.modality}."
        )
    if extensions and (absent := [name for name in settings.keep or () if name not in extensions]):
        raise ValueError(
            f"--keep {','.join(absent)}: no sample of {settings.shards} has it; it holds {', '.join(extensions)}."
        )


def all_devices() -> list[str]:
    """Every GPU of this machine; the CPU where there is none."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


class Watch:
    """Counts what the devices report, and says how it goes."""

    def __init__(self, total: Total, shards: int, samples: int, say: Say) -> None:
        self.total, self.shards, self.samples, self.say = total, shards, samples, say
        self.began = self.told = time.perf_counter()
        self.done = self.bad = 0
        self.wait = self.seconds = 0.0

    def __call__(self, progress: Progress) -> None:
        """Take a report."""
        self.total.items += progress.items
        self.total.codes += progress.codes
        self.done, self.bad = self.done + progress.shards, self.bad + progress.bad
        self.wait, self.seconds = self.wait + progress.wait, self.seconds + progress.seconds
        if progress.failed:
            self.total.failed.append(progress.failed)
            self.say(f"not written: {progress.failed}")
        if progress.left:
            self.say(f"left to another process, which is writing it: {progress.left}")
        if time.perf_counter() - self.told > EVERY:
            self.told = time.perf_counter()
            self.say(self.line())

    def line(self) -> str:
        """How far it is, and how fast."""
        took, items = time.perf_counter() - self.began, self.total.items
        rate, wait = items / took, self.wait / max(self.seconds, 1e-9)
        left = (self.samples - items) / rate if rate else 0.0
        return (
            f"{items:,}/{self.samples:,} items | {rate:,.1f}/s | {self.total.codes / took:,.0f} codes/s | "
            f"{self.done}/{self.shards} shards | {self.bad} bad | data wait {wait:.0%} | eta {left / 60:,.0f} min"
        )


def _run(settings: Settings, devices: Sequence[str], todo: Sequence[int], watch: Watch) -> None:
    if len(devices) == 1:
        encode_shards(settings, devices[0], todo, watch)
        return
    context = multiprocessing.get_context("spawn")  # a forked process cannot use a GPU
    channel = context.Queue()
    processes = [
        context.Process(target=_work, args=(settings, device, todo[i :: len(devices)], channel, len(devices)))
        for i, device in enumerate(devices)
    ]
    for process in processes:
        process.start()
    try:
        left = len(processes)
        while left:
            try:
                said = channel.get(timeout=1.0)
            except queue.Empty:
                _look(processes, devices)
                continue
            if isinstance(said, Exception):
                raise said
            if said is None:
                left -= 1
            else:
                watch(said)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _look(processes: Sequence[Any], devices: Sequence[str]) -> None:
    for process, device in zip(processes, devices, strict=True):
        if process.exitcode not in (None, 0):
            raise ValueError(
                f"the process of {device} ended by itself (status {process.exitcode}), mostly for want of memory. "
                "Give fewer --workers, and the same command continues; or a lower --batch or --size, and another OUT."
            )


def _work(settings: Settings, device: str, shards: Sequence[int], channel: Any, processes: int) -> None:
    """One device's process."""
    parent = os.getppid()
    if device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))

    def report(progress: Progress) -> None:
        if os.getppid() != parent:  # nobody listens any longer, and another job may have been started
            os._exit(1)
        channel.put(progress)

    try:
        encode_shards(settings, device, shards, report)
        channel.put(None)
    except (ValueError, OSError) as error:
        channel.put(type(error)(*error.args) if isinstance(error, OSError) else ValueError(str(error)))
