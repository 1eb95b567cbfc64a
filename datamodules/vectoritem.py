"""One sample of a set of vectors: its members as a checked vector, its class and its key."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from datamodules.decode import DecodeError, decode
from datamodules.remote import shown
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet
from mmtok.schema import ConfigError

MEMBERS = ("npy", "cls", "json")
"""Of a sample, that are read for training."""


class Item(NamedTuple):
    vector: np.ndarray
    """(F,) float32, finite."""
    label: int
    """-1 where there is none."""
    key: str
    """As the source has it; the sample's own name leaves out what a file name cannot hold."""
    text: str = ""
    """What the vector was made of; empty where it was not read, or there is none."""
    features: np.ndarray | None = None
    """(F,) float32 of a teacher; None where none was asked for."""


def read_item(name: str, members: Mapping[str, bytes], width: int | None = None) -> Item:
    """The members of a sample as a vector, its class, key, and text where that was read.

    Args:
        name: of the sample; the key, where no other is kept beside.
        members: extension -> content.
        width: numbers that the vector must have; None takes any.

    Raises:
        DecodeError: there is no vector, or it is of another type or width, or has numbers that are not finite.
    """
    # Beside the vector may lie a teacher's features, NAME.npy; keys with a dot leave no plain name.
    named = sorted((one for one in members if one.rpartition(".")[2] == "npy"), key=lambda one: (one != "npy", one))
    if not named:
        raise DecodeError(f"no vector among {sorted(members) or 'no members'}; known: npy")
    vector = as_vector(decode("npy", members[named[0]]), width)
    about = decode("json", members["json"]) if "json" in members else {}
    key = about.get("key", name) if isinstance(about, dict) else name
    label = decode("cls", members["cls"]) if "cls" in members else -1
    return Item(vector, label, str(key), decode("txt", members["txt"]) if "txt" in members else "")


def as_vector(array: np.ndarray, width: int | None = None) -> np.ndarray:
    """An array as (F,) float32.

    Raises:
        DecodeError: it is none: another shape, another type, another width, or numbers that are not finite.
    """
    if array.ndim != 1 or not array.size:
        raise DecodeError(f"an array of shape {array.shape} is no vector: it must have one axis")
    if not np.issubdtype(array.dtype, np.floating):
        raise DecodeError(f"{array.dtype} is no type of vectors: float16, float32 and float64 are")
    if width is not None and len(array) != width:
        raise DecodeError(f"the vector has {len(array)} numbers, the others {width}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is found below
        vector = array.astype(np.float32)
    if bad := int(np.count_nonzero(~np.isfinite(vector))):
        raise DecodeError(f"{bad} of its {len(array)} numbers are not finite in float32")
    return vector


def to_npy(vector: np.ndarray) -> bytes:
    """(F,) as a .npy of its own type."""
    buffer = io.BytesIO()
    np.save(buffer, vector, allow_pickle=False)
    return buffer.getvalue()


def width_of(source: ShardSet) -> int:
    """Numbers of a set's vectors: as its manifest says, else as its first sample has.

    Raises:
        ConfigError: the first sample cannot be read.
    """
    said = source.manifest.provenance.get("width")
    if isinstance(said, int) and said > 0:
        return said
    shard = int(np.flatnonzero(source.counts)[0])
    try:
        return len(read_item("", source.read(shard, 0, ("npy",)).members).vector)
    except (ShardError, OSError) as error:
        name = f"{source.key(shard, 0)} of {shown(source.home)}"
        raise ConfigError(f"{name} does not say how wide its vectors are: {error}. Give data.width=F.") from error


def read_items(source: ShardSet, *, text: bool = False) -> Iterator[Item]:
    """Every vector of a set, in the order of its shards.

    Args:
        source: the set.
        text: also read what they were made of.

    Raises:
        ShardError: a sample cannot be used.
    """
    extensions = (*MEMBERS, "txt") if text else MEMBERS
    width = width_of(source)
    for shard, count in enumerate(source.counts):
        for number in range(int(count)):
            sample = source.read(shard, number, extensions)
            try:
                yield read_item(sample.key, sample.members, width)
            except DecodeError as error:
                raise ShardError(
                    f"{sample.key} in {shown(source.home)}: {error}. Look: mmtok shards verify."
                ) from error
