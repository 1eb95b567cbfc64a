"""Vectors on their way into a shard: one axis, finite, of one width, float32."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from datamodules.build.prepare import Parts, Prepared, Preparer
from datamodules.build.source import Entry
from datamodules.decode import decode
from datamodules.vectoritem import as_vector, to_npy


@dataclass(frozen=True, kw_only=True)
class VectorOptions:
    """What `mmtok shards build` takes for vectors: nothing that changes them."""


class Vectors(Preparer):
    """Vectors become `.npy` members of float32, with their key in `.json`."""

    kind, noun = "vectors", "vectors"
    extensions, options = ("npy",), VectorOptions
    companion = True  # features stand beside pictures and sounds

    def prepare(self, entry: Entry) -> Prepared:
        parts = entry.read()
        return prepared_vector(entry.key, as_vector(decode("npy", parts["npy"])), parts)

    def facts(self, measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        return vector_facts(measures)

    def remarks(self, facts: Mapping[str, Any]) -> list[str]:
        return vector_remarks(facts)


def vector_facts(measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """What the manifest of a set of vectors says."""
    kept = [one for one in measures.values() if one]
    different = {one["digest"] for one in kept}
    return {"width": int(kept[0]["width"]) if kept else 0, "exact_duplicates": len(kept) - len(different)}


def vector_remarks(facts: Mapping[str, Any]) -> list[str]:
    """What the report of a set of vectors says."""
    return [f"{facts['width']:,} numbers each, {facts['exact_duplicates']:,} equal to an earlier one"]


def prepared_vector(
    key: str, vector: np.ndarray, beside: Mapping[str, bytes], measures: Mapping[str, float] | None = None
) -> Prepared:
    """A vector (F,) float32, with what stands beside it and was measured of that, as a sample.

    The key is kept as it is in `.json`: the sample's own name lacks what no file name can hold, and "g++" is "g" there.
    """
    data = to_npy(vector)
    about = json.loads(beside["json"]) if "json" in beside else {}
    members: Parts = {"npy": data, "json": json.dumps({"key": key} | about, ensure_ascii=False).encode()}
    if "txt" in beside:
        members["txt"] = beside["txt"]
    # The digest counts equal vectors; 48 bits of it pass through a float whole.
    digest = int.from_bytes(hashlib.sha256(data).digest()[:6], "big")
    return Prepared([(key, members)], {"width": len(vector), "digest": digest, **(measures or {})})
