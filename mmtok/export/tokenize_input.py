"""Samples of a shard as batches for an encoder: read and decoded by worker processes, never across two shards.

Pictures are stacked by size, sounds padded to the longest of a batch after they were ordered by the bytes they take in
the tar: that needs no look into them, and for one format it is about the order of their lengths. A signal becomes what
`tokenizer.preprocess` makes of its file, so that an item tokenized here and one tokenized alone have the same codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from datamodules.decode import image_extension, read_image, sound_extension
from datamodules.images import Images
from datamodules.shardindex import ShardError, ShardIndex
from datamodules.shards import ShardSet
from datamodules.sound import SOUNDS, read_sound
from mmtok.tokenizers import pixels, sounds
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.image import ImageTokenizer

SECONDS = 10
"""A batch of sounds holds as many samples as `batch` sounds of this length, and at most `batch` sounds."""
UNIT_BYTES = 32 << 20
"""Bytes of files that are decoded together: a batch of photographs of 50 megapixels would be gigabytes."""

WAITING = 4
"""Full batches that pictures of different sizes may hold while they wait for others of theirs."""


class Block(NamedTuple):
    """Items that can go through an encoder together."""

    numbers: list[int]
    """Of the samples in their shard."""
    x: Tensor
    """Pictures (B, C, H, W), uint8 or in [-1, 1]; sounds (B, C, S)."""
    lengths: Tensor | None
    """(B,) samples of each sound."""


class Unit(NamedTuple):
    """Samples of a shard that were read together."""

    shard: int
    blocks: list[Block]
    kept: dict[int, tuple[str, dict[str, bytes]]]
    """Number of a good sample -> its key, and members that go along."""
    bad: list[tuple[int, str, str]]
    """Number, key and reason of what could not be used."""
    last: bool
    """Whether the shard ends here."""
    failed: str = ""
    """Why nothing of the shard can be used."""


@dataclass(frozen=True)
class Preparer:
    """Bytes of a sample -> x, as the tokenizer's own `preprocess` makes it."""

    modality: str
    channels: int
    rate: int
    """Samples a second, of sounds."""
    side: int | None
    """Shorter side that pictures are scaled to, and of the middle square cut out; None leaves them as they are."""
    capacity: int
    """Pixels, or samples, of a batch."""
    batch: int
    """Items of a batch at most."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, size: str, batch: int) -> Preparer:
        """That of a tokenizer.

        Args:
            tokenizer: of pictures or sounds.
            size: of pictures: "own", "fit" for what the tokenizer was trained on, or a side.
            batch: pictures of the trained size, or sounds of `SECONDS`, in a batch.

        Raises:
            ValueError: the tokenizer is for something else, or the size makes no sense.
        """
        if isinstance(tokenizer, AudioTokenizer):
            if size != "own":
                raise ValueError(f"--size {size} is for pictures, and this tokenizer is for sounds. Leave it out.")
            config = tokenizer.config
            return cls("audio", config.channels, config.sample_rate, None, batch * SECONDS * config.sample_rate, batch)
        if not isinstance(tokenizer, ImageTokenizer):
            raise ValueError(f"shards are tokenized for pictures and sounds; this is a {type(tokenizer).__name__}.")
        trained = tokenizer.config.image_size
        side = None if size == "own" else trained if size == "fit" else int(size)
        return cls("image", tokenizer.config.channels, 0, side, batch * (side or trained) ** 2, batch)

    @property
    def content(self) -> tuple[str, ...]:
        """Members that hold the signal, by the last part of their extension."""
        return SOUNDS if self.modality == "audio" else Images.content

    def __call__(self, members: dict[str, bytes]) -> Tensor:
        """(1, C, ...) of one sample.

        Raises:
            ValueError: it cannot be used, and why.
        """
        if self.modality == "audio":
            name = sound_extension(members)
            sound = read_sound(members[name], name)
            return sounds.read_sound(sound.samples, self.rate, self.channels, sound.sample_rate)
        return pixels.prepare(read_image(members[image_extension(members)]), self.channels, self.side, self.side)

    def limit(self, shape: Sequence[int]) -> int:
        """Items of this shape (C, ...) in a batch."""
        return max(1, min(self.batch, self.capacity // max(1, prod(shape[1:]))))

    def blocks(self, items: list[tuple[int, Tensor]]) -> list[Block]:
        """Items -> what can be computed together, in an order that depends on nothing else."""
        if self.modality == "audio":
            return self._padded(items)
        groups: dict[Any, list[tuple[int, Tensor]]] = {}
        for number, x in items:
            groups.setdefault((x.shape, x.dtype), []).append((number, x))
        return [Block([n for n, _ in group], torch.cat([x for _, x in group]), None) for group in groups.values()]

    def _padded(self, items: list[tuple[int, Tensor]]) -> list[Block]:
        items = sorted(items, key=lambda item: (item[1].shape[2], item[0]))
        blocks, begin = [], 0
        while begin < len(items):
            end = begin + 1
            while end < len(items) and end - begin < self.limit(items[end][1].shape[1:]):
                end += 1
            part = items[begin:end]
            longest = part[-1][1].shape[2]
            x = torch.cat([F.pad(one, (0, longest - one.shape[2])) for _, one in part])
            blocks.append(Block([n for n, _ in part], x, torch.tensor([one.shape[2] for _, one in part])))
            begin = end
        return blocks


class ShardUnits(IterableDataset):
    """The units of some shards, in order; worker w of n reads every n-th from the w-th on."""

    def __init__(self, source: ShardSet, shards: Sequence[int], prepare: Preparer, keep: Sequence[str]) -> None:
        self.source, self.shards, self.prepare, self.keep = source, list(shards), prepare, tuple(keep)
        self.extensions = {*prepare.content, *(name.rpartition(".")[2] for name in keep)}

    def __iter__(self) -> Iterator[Unit]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        for turn, (shard, numbers, last) in enumerate(self._plan()):
            if turn % workers == worker:
                yield self._read(shard, numbers, last) if isinstance(numbers, list) else _failed(shard, numbers)

    def _plan(self) -> Iterator[tuple[int, list[int] | str, bool]]:
        """Shard, samples to read together (or why there are none), and whether they are its last."""
        for at, shard in enumerate(self.shards):
            if at + 1 < len(self.shards) and self.source.is_remote(self.shards[at + 1]):
                self.source.prefetch(self.shards[at + 1])
            try:
                index = self.source.index(shard)
                said = self.source.manifest.shards[shard].samples
                if len(index) != said:
                    raise ShardError(
                        f"it holds {len(index)} samples, its manifest says {said}. Check: mmtok shards verify"
                    )
            except (ShardError, OSError) as error:
                yield shard, str(error), True
                continue
            units = list(self._units(index))
            for number, unit in enumerate(units):
                yield shard, unit, number + 1 == len(units)

    def _units(self, index: ShardIndex) -> Iterator[list[int]]:
        sizes = [self._bytes(index, number) for number in range(len(index))]
        order = range(len(index))
        by_size = sorted(order, key=lambda n: (sizes[n], n)) if self.prepare.modality == "audio" else list(order)
        unit: list[int] = []
        held = 0
        for number in by_size:
            if unit and (len(unit) == self.prepare.batch or held + sizes[number] > UNIT_BYTES):
                yield unit
                unit, held = [], 0
            unit.append(number)
            held += sizes[number]
        yield unit

    def _bytes(self, index: ShardIndex, number: int) -> int:
        """Of the signal in the tar; 0 where there is none."""
        try:
            found = index.members(number)
        except ShardError:
            return 0
        content = self.prepare.content
        return next((size for name, (_, size) in found.items() if name.rpartition(".")[2] in content), 0)

    def _read(self, shard: int, numbers: list[int], last: bool) -> Unit:
        items: list[tuple[int, Tensor]] = []
        kept: dict[int, tuple[str, dict[str, bytes]]] = {}
        bad: list[tuple[int, str, str]] = []
        for number in numbers:
            try:
                sample = self.source.read(shard, number, self.extensions)
                items.append((number, self.prepare(sample.members)))
                kept[number] = sample.key, {name: sample.members[name] for name in self.keep if name in sample.members}
            except ValueError as error:
                bad.append((number, self.source.key(shard, number), str(error)))
            except OSError as error:  # may pass: without the sample the shard would count as finished for ever
                return Unit(shard, [], {}, [], last, f"{self.source.key(shard, number)}: {error}")
        return Unit(shard, self.prepare.blocks(items), kept, bad, last)


class Gatherer:
    """Blocks of one shard -> full batches: pictures of one size wait for others of theirs until the shard ends."""

    def __init__(self, prepare: Preparer) -> None:
        self.prepare = prepare
        self.waiting: dict[Any, Block] = {}

    def gathered(self, unit: Unit) -> Iterator[Block]:
        """The batches that are full with a further unit; with the last one of a shard, all."""
        for block in unit.blocks:
            yield from self._take(block)
        if unit.last:
            waiting, self.waiting = self.waiting, {}
            yield from waiting.values()

    def _take(self, block: Block) -> Iterator[Block]:
        if block.lengths is not None:
            yield block
            return
        limit, key = self.prepare.limit(block.x.shape[1:]), (block.x.shape[1:], block.x.dtype)
        if key in self.waiting:
            before = self.waiting.pop(key)
            block = Block(before.numbers + block.numbers, torch.cat([before.x, block.x]), None)
        for begin in range(0, len(block.numbers), limit):
            part = Block(block.numbers[begin : begin + limit], block.x[begin : begin + limit], None)
            if len(part.numbers) == limit:
                yield part
            else:
                self.waiting[key] = part
        # Photographs of as many sizes as there are of them must not all be held until the shard ends.
        while sum(one.x[:, 0].numel() for one in self.waiting.values()) > WAITING * self.prepare.capacity:
            yield self.waiting.pop(next(iter(self.waiting)))


def _failed(shard: int, why: str) -> Unit:
    return Unit(shard, [], {}, [], True, why)
