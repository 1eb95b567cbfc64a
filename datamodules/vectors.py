"""Embedding vectors: batches to train on, and a bounded sample of them to fit a tokenizer on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.base import DataConfig, register_data
from datamodules.module import ShardDataModule
from datamodules.order import Place
from datamodules.reader import SlotSample, count_bad
from datamodules.remote import shown
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet
from datamodules.teacher import check_alike, read_features, require_teachers
from datamodules.vectoritem import MEMBERS, Item, read_item, width_of
from mmtok.schema import ConfigError

CHUNK = 1024
"""Items of one tensor of a sample."""


@dataclass(frozen=True, kw_only=True)
class VectorsConfig(DataConfig):
    gives = "vector"
    width: int | None = None
    """Numbers of a vector. None takes what the manifest says; vectors of another width are refused by name."""
    sample_items: int = 1_000_000
    """Vectors that a fitted tokenizer sees at most."""
    teacher: str = ""
    """Features of another space to give along with each vector, by the name of their member: minilm for `minilm.npy`,
    of the text beside it. What is trained reads them; what is fitted does not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("width", "sample_items"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1.")

    @property
    def shape(self) -> tuple[int, ...]:
        return () if self.width is None else (self.width,)


@register_data("vectors", VectorsConfig)
class Vectors(ShardDataModule):
    """Batches of "x" (B, F) float32, finite; "label" (B,) with -1 where there is none; "key"; a "teacher" (B, F')."""

    config: VectorsConfig
    content = ("npy",)
    extensions = MEMBERS

    @cached_property
    def width(self) -> int:
        """F of every vector. Asked for before workers start, it travels to them.

        Raises:
            ConfigError: nothing says it, or two sets say different things.
        """
        return self._agreed(self.training_sets())

    def plan(self, *, seed: int, accumulate: int) -> None:
        """As of the base; also finds sets whose vectors differ in width."""
        super().plan(seed=seed, accumulate=accumulate)
        self.width = self._agreed([*self.training_sets(), *self.validation_sets()])
        require_teachers(self, self.config.teacher)

    def item(self, sample: SlotSample, training: bool) -> Item:
        found, teacher = read_item(sample.key, sample.members, self.width), self.config.teacher
        return found._replace(features=read_features(sample.members, teacher, (1,))) if teacher else found

    def batch(self, items: list[Any]) -> dict[str, Any]:
        features = [one.features for one in items if one.features is not None]
        if features:
            check_alike(features, [one.key for one in items], self.config.teacher, 1)
        taught = {"teacher": torch.from_numpy(np.stack(features))} if features else {}
        return taught | {
            "x": torch.from_numpy(np.stack([one.vector for one in items])),
            "label": torch.tensor([one.label for one in items]),
            "key": [one.key for one in items],
        }

    def to_signal(self, x: Tensor) -> Tensor:
        return x

    def sample(self, seed: int) -> VectorSample:
        """Vectors of the training sets, drawn by their keys; nothing needs to be held out for it.

        Raises:
            ConfigError: a set is missing, holds no vectors, or ones of another width.
        """
        sets = self.training_sets()
        self.check_content(sets)
        return VectorSample(sets, self.config, self._agreed(sets), seed)

    def _agreed(self, sets: Sequence[ShardSet]) -> int:
        said = {shown(one.home): width_of(one) for one in sets}
        wanted = self.config.width or next(iter(said.values()))
        for home, width in said.items():
            if width != wanted:
                asked = "data.width" if self.config.width else shown(sets[0].home)
                raise ConfigError(f"{home} holds vectors of {width} numbers; {asked} says {wanted}.")
        return wanted


@dataclass
class VectorSample:
    """Tensors (n, F) of the training sets in an order of their keys: neither shards nor their number change it.

    Iterate as often as needed; the figures stand after the first time.
    """

    sets: Sequence[ShardSet]
    config: VectorsConfig
    width: int
    """F."""
    seed: int = 0
    items: int = 0
    """Vectors that were given."""
    of_items: int = 0
    """What there is of them."""
    sha256: str = ""
    """Of every vector that was given, in its order."""
    bad: list[str] = field(default_factory=list)
    """Keys that could not be read, with the reason."""

    def __iter__(self) -> Iterator[Tensor]:
        self.items, self.bad = 0, []
        digest = hashlib.sha256()
        chunk: list[np.ndarray] = []
        taken = self._draw()
        for place in taken:
            source = self.sets[place.set]
            try:
                sample = source.read(place.shard, place.sample, ("npy",))
                chunk.append(read_item(sample.key, sample.members, self.width).vector)
            except (ShardError, OSError) as error:
                key = source.key(place.shard, place.sample)
                count_bad(self.bad, key, error, len(taken), self.config.max_bad_fraction)
            if len(chunk) == CHUNK:
                yield self._give(chunk, digest)
                chunk = []
        if chunk:
            yield self._give(chunk, digest)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        """Vectors that will be given at most."""
        return min(self.config.sample_items, sum(len(one) for one in self.sets))

    def _give(self, chunk: list[np.ndarray], digest: Any) -> Tensor:
        stacked = np.stack(chunk)
        digest.update(stacked.tobytes())
        self.items += len(stacked)
        return torch.from_numpy(stacked)

    def _draw(self) -> list[Place]:
        ranked = []
        for number, source in enumerate(self.sets):
            for shard in range(len(source.counts)):
                index = source.index(shard)
                for sample in range(int(source.counts[shard])):
                    rank = hashlib.sha256(f"{self.seed}:{index.key(sample)}".encode()).digest()[:8]
                    ranked.append((rank, Place(number, shard, sample)))
        self.of_items = len(ranked)
        return [place for _, place in sorted(ranked)[: self.config.sample_items]]

    def facts(self) -> dict[str, Any]:
        """What was taken, for the run's records."""
        return {
            "sha256": self.sha256,
            "items": self.items,
            "of_items": self.of_items,
            "width": self.width,
            "unreadable": len(self.bad),
        }

    def told(self) -> list[str]:
        """Lines about it, for people."""
        lines = []
        if self.bad:
            lines.append(f"WARNING: {len(self.bad)} vectors could not be used. Look: mmtok shards verify.")
        size = f"{self.items:,} of {self.of_items:,} vectors of {self.width:,} numbers"
        return [*lines, f"sample of {size}, sha256 {self.sha256[:16]}"]
