"""Features of a teacher that lie beside signals in the shards, as members NAME.npy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from datamodules.decode import DecodeError, decode
from datamodules.remote import shown
from datamodules.shards import ShardSet
from mmtok.schema import ConfigError


def member_of(teacher: str) -> str:
    """Extension of a teacher's member."""
    return f"{teacher}.npy"


def require_teacher(source: ShardSet, teacher: str) -> None:
    """Refuse a set without the features of a teacher.

    Raises:
        ConfigError: it holds none; says how they come there.
    """
    listed = source.manifest.extensions
    if listed and member_of(teacher) not in listed:
        raise ConfigError(
            f"{shown(source.home)} holds no {member_of(teacher)}, which data.teacher={teacher} asks for. Add features: "
            f"mmtok shards features {shown(source.home)} -o OUT --teacher NAME (of sounds also when they are built: "
            "--features mfcc)."
        )


def read_features(members: Mapping[str, bytes], teacher: str, axes: Sequence[int]) -> np.ndarray:
    """A sample's features as float32.

    Args:
        members: of the sample.
        teacher: whose.
        axes: how many they may have.

    Raises:
        DecodeError: there are none, or something else is in their place.
    """
    member = member_of(teacher)
    if member not in members:
        raise DecodeError(f"no {member} among {sorted(members)}")
    features = decode("npy", members[member])
    if features.ndim not in axes or not np.issubdtype(features.dtype, np.floating):
        wanted = " or ".join(f"{count} axes" if count > 1 else "1 axis" for count in axes)
        raise DecodeError(f"{member} is {features.dtype} of shape {features.shape}, not numbers of {wanted}")
    if not np.isfinite(features).all():
        raise DecodeError(f"{member} has numbers that are not finite")
    return features.astype(np.float32)
