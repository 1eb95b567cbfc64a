"""A shard set with a teacher's features beside every signal: `mmtok shards features`."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from datamodules.decode import DecodeError
from datamodules.manifest import Manifest
from datamodules.remote import shown
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet
from datamodules.teacher import member_of
from datamodules.writer import ShardWriter
from mmtok.schema import ConfigError
from mmtok.teachers.base import Teacher

BATCH = 32
"""Signals that a teacher looks at together."""
Progress = Callable[[int, int], None]


def write_features(
    source: ShardSet, out: str | Path, teacher: Teacher, *, progress: Progress | None = None
) -> tuple[Manifest, list[str]]:
    """Copy a set, with one more member a sample. The same call continues one that was killed.

    A sample that the teacher cannot read keeps its place in neither set: it is left out.

    Args:
        source: the set.
        out: folder of the new one.
        teacher: whose features.
        progress: told (samples done, all).

    Returns:
        The manifest of the new set, and what was left out, with the reason.

    Raises:
        ConfigError: the set holds nothing that the teacher looks at, or has such features already.
        ShardError: the folder holds something else, or is full.
    """
    manifest, member = source.manifest, member_of(teacher.name)
    listed = {name.rpartition(".")[2] for name in manifest.extensions}
    if listed and not listed & set(teacher.content):
        raise ConfigError(
            f"{shown(source.home)} holds {', '.join(manifest.extensions)}; teacher '{teacher.name}' looks at "
            f"{', '.join(teacher.content)}."
        )
    if member in manifest.extensions:
        raise ConfigError(f"{shown(source.home)} holds {member} already.")
    known = manifest.provenance.get("features", {})
    left_out: list[str] = []
    total, done = len(source), 0
    with ShardWriter(
        out,
        kind=manifest.kind,
        split=manifest.split,
        classes=manifest.classes,
        source=manifest.source,
        licence=manifest.licence,
        provenance=manifest.provenance | {"features": {**known, teacher.name: teacher.about()}},
    ) as writer:
        for keys, samples in _batches(source):
            for key, members in zip(keys, _taught(samples, teacher, left_out, keys), strict=True):
                if members is not None:
                    writer.add(key, members)
            done += len(keys)
            if progress:
                progress(done, total)
    return writer.manifest, left_out


def _batches(source: ShardSet) -> Iterator[tuple[list[str], list[dict[str, bytes]]]]:
    keys: list[str] = []
    samples: list[dict[str, bytes]] = []
    for shard, count in enumerate(source.counts):
        for number in range(int(count)):
            sample = source.read(shard, number)
            keys.append(sample.key)
            samples.append(dict(sample.members))
            if len(keys) == BATCH:
                yield keys, samples
                keys, samples = [], []
    if keys:
        yield keys, samples


def _taught(
    samples: list[dict[str, bytes]], teacher: Teacher, left_out: list[str], keys: list[str]
) -> list[dict[str, bytes] | None]:
    """Samples with their features; None for one that cannot be read."""
    signals = [_signal(members, teacher) for members in samples]
    seen = [one for one in signals if one is not None]
    try:
        found: list[np.ndarray | None] = list(teacher.features(seen)) if seen else []
    except DecodeError:  # one of them: each by itself tells which
        found = [_alone(one, teacher, left_out, key) for one, key in zip(signals, keys, strict=True) if one is not None]
    features = iter(found)
    taught: list[dict[str, bytes] | None] = []
    for members, signal, key in zip(samples, signals, keys, strict=True):
        if signal is None:
            left_out.append(f"{key}: no {', '.join(teacher.content)} among {', '.join(sorted(members))}")
            taught.append(None)
            continue
        own = next(features)
        taught.append(None if own is None else members | {member_of(teacher.name): _npy(own)})
    return taught


def _signal(members: dict[str, bytes], teacher: Teacher) -> tuple[str, bytes] | None:
    extension = next((name for name in members if name.rpartition(".")[2] in teacher.content), None)
    return None if extension is None else (extension, members[extension])


def _alone(signal: tuple[str, bytes], teacher: Teacher, left_out: list[str], key: str) -> np.ndarray | None:
    try:
        return teacher.features([signal])[0]
    except DecodeError as error:
        left_out.append(f"{key}: {error}")
        return None


def _npy(features: np.ndarray) -> bytes:
    """A .npy of 16 bits.

    Raises:
        ShardError: the teacher gave numbers that are not finite there.
    """
    with np.errstate(over="ignore"):
        small = features.astype(np.float16)
    if not np.isfinite(small).all():
        raise ShardError("a teacher gave features that are not finite in 16 bits. Is it the right model?")
    buffer = io.BytesIO()
    np.save(buffer, small, allow_pickle=False)
    return buffer.getvalue()
