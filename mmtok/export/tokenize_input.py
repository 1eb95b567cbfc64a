"""Samples of a shard as batches for an encoder: signals as the tokenizer's own preprocessing makes them, put together.

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

from datamodules.decode import image_extension, read_image, sound_extension
from datamodules.images import Images
from datamodules.sound import SOUNDS, read_sound
from datamodules.vectoritem import read_item
from datamodules.vectors import Vectors
from mmtok.tokenizers import pixels, sounds
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.image import ImageTokenizer
from mmtok.tokenizers.vector import VectorTokenizer

SECONDS = 10
"""A batch of sounds holds as many samples as `batch` sounds of this length, and at most `batch` sounds."""
MAX_PIXELS = 1 << 24
"""Of a picture that is encoded at once: above, it depends on the machine whether it fits the memory."""
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


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or its cause, is want of memory; torch has no type of its own for that of the CPU."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    said = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "bad_alloc")
    if isinstance(error, RuntimeError) and any(words in str(error) for words in said):
        return True
    return error.__cause__ is not None and out_of_memory(error.__cause__)


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
        if isinstance(tokenizer, VectorTokenizer):
            if size != "own":
                raise ValueError(f"--size {size} is for pictures, and this tokenizer is for vectors. Leave it out.")
            return cls("vector", tokenizer.config.width, 0, None, batch, batch)
        if not isinstance(tokenizer, ImageTokenizer):
            name = type(tokenizer).__name__
            raise ValueError(f"shards are tokenized for pictures, sounds and vectors; this is a {name}.")
        trained = tokenizer.config.image_size
        side = None if size == "own" else trained if size == "fit" else int(size)
        if side is not None and side**2 > MAX_PIXELS:
            raise ValueError(f"--size {side} is above {int(MAX_PIXELS**0.5)}: more pixels are not encoded at once.")
        return cls("image", tokenizer.config.channels, 0, side, batch * (side or trained) ** 2, batch)

    @property
    def content(self) -> tuple[str, ...]:
        """Members that hold the signal, by the last part of their extension."""
        return {"audio": SOUNDS, "vector": Vectors.content}.get(self.modality, Images.content)

    def __call__(self, members: dict[str, bytes]) -> Tensor:
        """(1, C, ...) of one sample.

        Raises:
            ValueError: it cannot be used, and why.
        """
        if self.modality == "audio":
            name = sound_extension(members)
            sound = read_sound(members[name], name)
            return sounds.read_sound(sound.samples, self.rate, self.channels, sound.sample_rate)
        if self.modality == "vector":
            return torch.from_numpy(read_item("", members, self.channels).vector)[None]
        x = pixels.prepare(read_image(members[image_extension(members)]), self.channels, self.side, self.side)
        if x.shape[-2:].numel() > MAX_PIXELS:
            raise ValueError(f"{self.size_of(x)} are above {MAX_PIXELS:,}, which are encoded at once. Scale: --size.")
        return x

    def size_of(self, x: Tensor) -> str:
        """The size of one of (B, C, ...), for people."""
        if self.modality == "audio":
            return f"{x.shape[2] / self.rate:,.1f} s"
        if self.modality == "vector":
            return f"{x.shape[1]:,} numbers"
        return f"{x.shape[3]:,} x {x.shape[2]:,} pixels"

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


class Gatherer:
    """Blocks of one shard -> full batches: pictures of one size wait for others of theirs until the shard ends."""

    def __init__(self, prepare: Preparer) -> None:
        self.prepare = prepare
        self.waiting: dict[Any, Block] = {}

    def gathered(self, blocks: Sequence[Block], last: bool) -> Iterator[Block]:
        """The batches that are full with these blocks; with the last ones of a shard, all."""
        for block in blocks:
            yield from self._take(block)
        if last:
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
