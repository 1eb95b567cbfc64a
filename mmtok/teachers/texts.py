"""Teachers of texts, for captions and transcripts beside pictures and sounds: what the contrastive term pairs with."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from datamodules.decode import decode
from datamodules.embedding import make_embedding
from mmtok.teachers.base import Teacher, register_teacher

PIECES, LETTERS = 4, 800
"""Of a document that are read: the encoder takes about 200 English words at once."""


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


@register_teacher
class MiniLMDocument(MiniLM):
    """The same encoder over a document: the mean of what it says of its first pieces, of length 1.

    It reads 256 of its tokens at once; a long document's first lines alone would stand for it.
    """

    name = "minilm_document"

    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        pieces = [_pieces(decode("txt", data)) for _, data in signals]
        found = self.embedding.embed([piece for one in pieces for piece in one])
        means = [part.mean(0) for part in np.split(found, np.cumsum([len(one) for one in pieces])[:-1])]
        return [mean / max(float(np.linalg.norm(mean)), 1e-6) for mean in means]

    def about(self) -> dict[str, Any]:
        said = f"all-MiniLM-L6-v2, mean over the first {PIECES} pieces of {LETTERS} characters, of length 1"
        return super().about() | {"about": said}


def _pieces(text: str) -> list[str]:
    """The beginning of a document in pieces at spaces, one at least."""
    beginning = " ".join(text[: 2 * PIECES * LETTERS].split())
    return textwrap.wrap(beginning, LETTERS, break_on_hyphens=False)[:PIECES] or [""]
