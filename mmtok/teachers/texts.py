"""Teachers of texts, for captions and transcripts beside pictures and sounds: what the contrastive term pairs with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.decode import decode
from datamodules.embedding import make_embedding
from mmtok.teachers.base import Teacher, register_teacher


@register_teacher
class MiniLM(Teacher):
    """The sentence encoder whose weights install from a package; of a text of several lines the first, 384 features."""

    name = "minilm"
    content = ("txt",)

    def __init__(self) -> None:
        self.embedding = make_embedding("minilm")

    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        lines = [decode("txt", data).strip().split("\n")[0] for _, data in signals]
        return list(self.embedding.embed(lines))

    def about(self) -> dict[str, Any]:
        return {"about": "all-MiniLM-L6-v2 of the first line, of length 1", **self.embedding.about()}
