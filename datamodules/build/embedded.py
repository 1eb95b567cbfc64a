"""Texts that become vectors on their way into a shard, by an embedding that stays beside the sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.build.prepare import Prepared
from datamodules.build.source import Entry
from datamodules.build.texts import TextOptions, Texts
from datamodules.build.vectors import prepared_vector, vector_facts, vector_remarks
from datamodules.embedding import EMBEDDING, fitted_on, load_embedding, make_embedding, save_embedding

MOST_TEXTS = 200_000
"""That are fitted on: the SVD holds several dense matrices of texts x dims, and directions settle long before."""


@dataclass(frozen=True, kw_only=True)
class EmbedOptions(TextOptions):
    vectors: str
    """tfidf, minilm, or the folder of an earlier build, whose embedding is then taken as it is."""
    dims: int | None = None
    """Numbers of a vector; None takes what is usual: 256 for tfidf."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dims is not None and self.dims < 1:
            raise ValueError(f"dims={self.dims} must be at least 1.")


class Embedded(Texts):
    """Documents become `.npy` members with their `.txt` beside them. Only training texts are fitted on."""

    kind, noun = "vectors", "texts"
    options = EmbedOptions
    chosen: EmbedOptions

    def begin(self, training: Sequence[Entry], out: Path) -> None:
        """Take up the embedding that stands in `out`, or make it."""
        # They come in the order of their hashes, so the first ones are a fair sample.
        training = training[:MOST_TEXTS]
        path, given = out / EMBEDDING, Path(self.chosen.vectors).expanduser()
        if given.exists():
            embedding = load_embedding(given)
            if self.chosen.dims not in (None, embedding.width):
                raise ValueError(f"dims={self.chosen.dims}, but the vectors of {given} have {embedding.width} numbers.")
            key = fitted_on(given / EMBEDDING if given.is_dir() else given)
        else:
            embedding = make_embedding(self.chosen.vectors, self.chosen.dims)
            plan = [self.chosen.vectors, embedding.width, self.chosen.min_characters, *(one.key for one in training)]
            key = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
        if path.exists():
            if fitted_on(path) != key:
                raise ValueError(
                    f"{path} was made of other texts or with other options. Remove it or choose another -o."
                )
        else:
            if not given.exists():
                embedding.fit([text for one in training if (text := self._text(one)) is not None])
            out.mkdir(parents=True, exist_ok=True)
            save_embedding(embedding, path, key)
        # As of the file, so that a build which continues gives the same bytes.
        self.embedding = load_embedding(path)

    def prepare(self, entry: Entry) -> Prepared:
        made = super().prepare(entry)
        if not made.samples:
            return made
        [(key, members)] = made.samples
        vector = self.embedding.embed([members["txt"].decode()])[0]
        if not vector.any():
            return Prepared([], {}, "none of its words stands in two training texts")
        return prepared_vector(key, vector, members, made.measures)

    def shown(self) -> dict[str, Any]:
        return super().shown() | {"embedding": {"name": self.embedding.name} | self.embedding.about()}

    def facts(self, measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        return super().facts(measures) | vector_facts(measures)

    def remarks(self, facts: Mapping[str, Any]) -> list[str]:
        return super().remarks(facts) + vector_remarks(facts)

    def _text(self, entry: Entry) -> str | None:
        try:
            made = super().prepare(entry)
        except (ValueError, OSError):  # left out by name when its turn comes
            return None
        return made.samples[0][1]["txt"].decode() if made.samples else None
