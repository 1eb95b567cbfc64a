"""Shard sets so small that a measurement makes its own: the fixture's pictures, tones, made-up words, clusters."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from datamodules.build import build_shards
from datamodules.decode import decode_image, image_extension
from datamodules.shards import ShardSet
from datamodules.writer import ShardWriter

RATE, TEACHER_HOP = 8000, 160


def prepare(out: Path) -> None:
    """The shards of all cases, where they are not there yet."""
    if not (out / "shards" / "train" / "manifest.json").is_file():
        build_shards("fixture", out / "shards")
    if not (out / "taught" / "train" / "manifest.json").is_file():
        write_taught(out / "shards", out / "taught")
    if not (out / "sounds" / "train" / "manifest.json").is_file():
        write_sounds(out / "sounds")
    if not (out / "texts" / "train" / "manifest.json").is_file():
        write_texts(out / "texts")
    if not (out / "vectors" / "train" / "manifest.json").is_file():
        write_vectors(out / "vectors")


def write_taught(source: Path, folder: Path) -> None:
    """The fixture's pictures, each with ten numbers of its colours as a teacher's."""
    draws = np.random.default_rng(0)
    mixed = draws.normal(size=(10, 6))
    for split in ("train", "val"):
        found = ShardSet.open(source / split)
        with ShardWriter(folder / split, kind="images", split=split, samples_per_shard=10) as writer:
            for shard, count in enumerate(found.counts):
                for number in range(int(count)):
                    key, members = found.read(shard, number)
                    pixels = decode_image(members[image_extension(members)]) / 127.5 - 1
                    colours = np.concatenate([pixels.mean((0, 1)), pixels.std((0, 1))])
                    teacher = io.BytesIO()
                    np.save(teacher, (mixed @ colours).astype(np.float16))
                    writer.add(key, members | {"colours.npy": teacher.getvalue()})


def write_texts(folder: Path) -> None:
    """Shards of made-up words in letters of one to four bytes, texts of 5 to 150 bytes."""
    draws = np.random.default_rng(0)
    letters = ["a", "b", "c ", "é", "漢", "🙂"]
    for split, count in (("train", 60), ("val", 9)):
        with ShardWriter(folder / split, kind="text", split=split, samples_per_shard=10) as writer:
            for i in range(count):
                text = "".join(draws.choice(letters, size=draws.integers(5, 60)))
                writer.add(f"{split}{i:03d}", {"txt": text.encode()})


def write_sounds(folder: Path) -> None:
    """Shards of tones that come and go, one of them silent, each with six multiples of its level as a teacher."""
    import soundfile

    draws = np.random.default_rng(0)
    for split, count in (("train", 60), ("val", 9)):
        features = {"features": {"level": {"rate": RATE / TEACHER_HOP}}}
        with ShardWriter(
            folder / split, kind="audio", split=split, samples_per_shard=10, provenance=features
        ) as writer:
            for i in range(count):
                time = np.arange(RATE + draws.integers(3000)) / RATE
                x = 0.3 * np.sin(2 * np.pi * draws.integers(100, 900) * time) * (0.5 + 0.5 * np.sin(6 * np.pi * time))
                x = (x + 0.01 * draws.standard_normal(len(x))) * (i != 3)
                sound, teacher = io.BytesIO(), io.BytesIO()
                soundfile.write(sound, x, RATE, format="FLAC")
                np.save(teacher, np.outer(range(1, 7), np.abs(x[::TEACHER_HOP])).astype(np.float32))
                members = {"flac": sound.getvalue(), "level.npy": teacher.getvalue(), "cls": str(i % 3).encode()}
                writer.add(f"{split}{i:03d}", members)


def write_vectors(folder: Path) -> None:
    """Shards of unit-norm vectors in ten clusters around a common mean."""
    draws = np.random.default_rng(0)
    centres = draws.normal(size=(10, 12))
    for split, count in (("train", 120), ("val", 9)):
        with ShardWriter(folder / split, kind="vectors", split=split, samples_per_shard=20) as writer:
            for i in range(count):
                x = centres[draws.integers(10)] + 0.3 * draws.normal(size=12) + 1
                member = io.BytesIO()
                np.save(member, (x / np.linalg.norm(x)).astype(np.float32))
                writer.add(f"{split}{i:03d}", {"npy": member.getvalue()})
