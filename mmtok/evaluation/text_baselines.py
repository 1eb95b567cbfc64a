"""What else takes texts to few bits: vocabularies fitted on the training set, and compressors. All are exact."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import log2
from typing import Any

from datamodules.base import DataConfig
from datamodules.texts import Texts, TextsConfig
from mmtok.evaluation.text import evaluate_text
from mmtok.evaluation.text_modality import as_text
from mmtok.tokenizers.subword import SubwordConfig, SubwordTokenizer

SAMPLE_MB = 50.0
"""Of training texts a vocabulary is fitted on at most."""
USUAL = 32_768
"""Tokens of the vocabulary that is fitted besides: a usual one."""
EXACT = {"byte_accuracy": 1.0, "exact_pieces": 1.0, "exact": 1.0}

CHOICES = {
    "vocabularies": f"byte-level BPE of as many tokens as all codebooks together hold, 512 at least, and of {USUAL:,}, "
    f"each fitted on up to {SAMPLE_MB:g} MB of the training set",
    "compressors": "all documents in one stream, at the highest level",
}


def texts_of(batches: Iterable[Mapping[str, Any]], most: int | None = None) -> list[str]:
    """The documents of batches of bytes as texts, the first ones."""
    found: list[str] = []
    for batch in batches:
        found += [as_text(row[0, :size]) for row, size in zip(batch["x"], batch["lengths"].tolist(), strict=True)]
        if most is not None and len(found) >= most:
            break
    return found[:most]


def measure_vocabularies(
    texts: Sequence[str], data: DataConfig, sizes: Iterable[int], *, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """BPE on the same documents, a row a size.

    Args:
        texts: held-out documents.
        data: of the run, whose training sets vocabularies are fitted on.
        sizes: tokens of the vocabularies.
        seed: of the sample.
    """
    source = TextsConfig(shards=data.shards, sample_mb=SAMPLE_MB, cache_dir=data.cache_dir, cache_gb=data.cache_gb)
    for size in sorted(set(sizes)):
        tokenizer = SubwordTokenizer(SubwordConfig(vocab_size=size, special=(), pad_to=1))
        tokenizer.fit(Texts(source).sample(seed))
        some = ["" for _ in texts]
        report = evaluate_text(tokenizer, [{"x": texts, "language": some, "parallel": some, "key": some}])
        found, vocabulary = report.metrics, tokenizer.spec.codebook_sizes[0]
        assert found["exact"] == 1, "a byte-level vocabulary gives every text back"
        yield {
            "codec": f"BPE of {vocabulary:,}",
            "metrics": EXACT
            | {
                "bits_per_byte": log2(vocabulary) / found["bytes_per_token"],
                "unigram_bits_per_byte": found["bits_per_byte"],
                "exact_bits_per_byte": found["bits_per_byte"],
                "bytes_per_code": found["bytes_per_token"],
            },
        }


def measure_compressors(texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Compressors of the standard library on the same documents."""
    data = "".join(texts).encode()
    found = {"zlib": zlib.compress(data, 9), "xz": lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)}
    for name, packed in found.items():
        bits = 8 * len(packed) / max(len(data), 1)
        yield {"codec": name, "metrics": EXACT | {"bits_per_byte": bits, "exact_bits_per_byte": bits}}


def sizes_beside(codebooks: Sequence[int]) -> list[int]:
    """Tokens of the vocabularies that stand beside codebooks."""
    return [max(512, min(sum(codebooks), USUAL)), USUAL] if codebooks else [USUAL]
