"""Texts as bytes: crops of documents of equal length, cut by draws that belong to the sample's slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import DataConfig, register_data
from datamodules.module import ShardDataModule
from datamodules.reader import SlotSample
from datamodules.teacher import check_alike, read_features, require_teachers
from datamodules.texts import Texts, document

LONGEST = 4
"""Bytes of a character of UTF-8 at most."""


@dataclass(frozen=True, kw_only=True)
class TextBytesConfig(DataConfig):
    gives = "text"
    bytes: int = 256
    """Length of a training crop of a document; shorter documents are padded at their end."""
    val_bytes: int = 4096
    """Validation takes documents from their beginning, up to this length."""
    teacher: str = ""
    """Features beside each document to give along, by the name of their member: minilm_document for
    `minilm_document.npy`. One vector (F,) of the whole, whatever is cut out of it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("bytes", "val_bytes"):
            if getattr(self, name) < LONGEST:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {LONGEST}, the longest character.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.bytes,)


class Crop(NamedTuple):
    text: np.ndarray
    """(S,) uint8, whole characters."""
    label: int
    """Number of its class, -1 where there is none."""
    language: str
    key: str
    features: np.ndarray | None = None
    """(F,) float32; None where no teacher is asked for."""


@register_data("text_bytes", TextBytesConfig)
class TextBytes(ShardDataModule):
    """Batches of "x" (B, 1, S) of uint8, "lengths" (B,), "label" (B,) with -1 where there is none, "language", "key".

    "teacher" (B, F) where one is asked for. S is the length of a training crop, and in validation that of the longest
    document, no less.
    """

    config: TextBytesConfig
    content = Texts.content

    def __init__(self, config: DataConfig) -> None:
        super().__init__(config)
        self.extensions = (*Texts.extensions, "npy") if self.config.teacher else Texts.extensions

    def plan(self, *, seed: int, accumulate: int) -> None:
        """As of the base; also finds features that are missing."""
        super().plan(seed=seed, accumulate=accumulate)
        require_teachers(self, self.config.teacher)

    def item(self, sample: SlotSample, training: bool) -> Crop:
        source = (self.training_sets() if training else self.validation_sets())[sample.set]
        found = document(source, sample.key, sample.members)
        data = np.frombuffer(found.text.encode(), dtype=np.uint8)
        if training:
            places = max(0, len(data) - self.config.bytes) + 1
            start = int(np.random.Generator(np.random.Philox(sample.seed)).integers(places))
            crop = whole_characters(data, start, self.config.bytes)
        else:
            crop = whole_characters(data, 0, self.config.val_bytes)
        classes = source.manifest.classes
        label = classes.index(found.language) if classes and "cls" in sample.members else -1
        teacher = self.config.teacher
        features = read_features(sample.members, teacher, (1,)) if teacher else None
        return Crop(crop, label, found.language, found.key, features)

    def batch(self, items: list[Any]) -> dict[str, Any]:
        """Items -> tensors."""
        texts, labels, languages, keys, features = zip(*items, strict=True)
        if self.config.teacher:
            check_alike(features, keys, self.config.teacher, 1)
        taught = {"teacher": torch.from_numpy(np.stack(features))} if self.config.teacher else {}
        return taught | {
            "x": torch.from_numpy(padded(texts, self.config.bytes)),
            "lengths": torch.tensor([len(text) for text in texts]),
            "label": torch.tensor(labels),
            "language": list(languages),
            "key": list(keys),
        }

    def to_signal(self, x: Tensor) -> Tensor:
        return x


def whole_characters(data: np.ndarray, start: int, length: int) -> np.ndarray:
    """The characters of UTF-8 `data` (N,) that lie whole within `length` bytes from `start` on."""
    end = min(start + length, len(data))
    while start < end and data[start] & 0xC0 == 0x80:
        start += 1
    while start < end < len(data) and data[end] & 0xC0 == 0x80:
        end -= 1
    return data[start:end]


def padded(texts: tuple[np.ndarray, ...], least: int) -> np.ndarray:
    """(B, 1, S) uint8 with S the longest, `least` at least; zeros behind what is shorter."""
    stacked = np.zeros((len(texts), 1, max(least, *map(len, texts))), dtype=np.uint8)
    for row, text in zip(stacked, texts, strict=True):
        row[0, : len(text)] = text
    return stacked
