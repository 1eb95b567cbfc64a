"""Retrieval by the words themselves: BM25 and the cosine of TF-IDF, over an inverted index of sparse matrices.

Robertson et al. 1994 ("Okapi at TREC-3"), with the idf that is never negative, as Lucene has it. Words are runs of
letters and digits in lower case, without stemming and without stop words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

K1, B = 1.2, 0.75
"""How soon more of a word stops to count, and how much long texts pay."""
ASKED = 256
"""Queries at a time: their scores of all texts are dense."""
WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in their order."""
    return WORD.findall(text.lower())


class Lexical:
    """An index of texts."""

    def __init__(self, texts: Sequence[str], weighting: Literal["bm25", "tfidf"]) -> None:
        self.weighting = weighting
        self.vocabulary: dict[str, int] = {}
        for text in texts:
            for word in words(text):
                self.vocabulary.setdefault(word, len(self.vocabulary))
        counts = self._counts(texts)
        frequency = np.bincount(counts.indices, minlength=len(self.vocabulary))
        count = len(texts)
        if weighting == "bm25":
            self.idf = np.log1p((count - frequency + 0.5) / (frequency + 0.5))
            lengths = np.asarray(counts.sum(1)).ravel()
            rows = np.repeat(np.arange(count), np.diff(counts.indptr))
            long = 1 - B + B * lengths[rows] / max(lengths.mean(), 1e-9)
            counts.data = counts.data * (K1 + 1) / (counts.data + K1 * long)
            self.matrix = counts @ sparse.diags(self.idf)
        else:
            self.idf = np.log((1 + count) / (1 + frequency)) + 1
            self.matrix = self._cosine(counts)

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """(Q, N) of every text."""
        asked = self._counts(queries)
        return (asked if self.weighting == "bm25" else self._cosine(asked)).dot(self.matrix.T).toarray()

    def answers(self, queries: Sequence[str], count: int) -> Tensor:
        """(Q, count) rows of texts, best first; -1 where no word is shared any more."""
        found = []
        for start in range(0, len(queries), ASKED):
            scores = torch.from_numpy(self.scores(queries[start : start + ASKED]))
            best = scores.topk(min(count, scores.shape[1]))
            found.append(best.indices.masked_fill(best.values <= 0, -1))
        return torch.cat(found)

    def _counts(self, texts: Iterable[str]) -> sparse.csr_matrix:
        """(texts, words) how often each word of the vocabulary occurs."""
        data: list[int] = []
        columns: list[int] = []
        ends = [0]
        for text in texts:
            counted = Counter(self.vocabulary[word] for word in words(text) if word in self.vocabulary)
            columns.extend(counted)
            data.extend(counted.values())
            ends.append(len(columns))
        shape = (len(ends) - 1, len(self.vocabulary))
        return sparse.csr_matrix((np.array(data, dtype=np.float64), columns, ends), shape=shape)

    def _cosine(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Rows of length one."""
        weighted = counts.copy()
        weighted.data = 1 + np.log(weighted.data)
        weighted = weighted @ sparse.diags(self.idf)
        lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1)).ravel())
        return sparse.diags(1 / np.maximum(lengths, 1e-12)) @ weighted
