"""Features of a teacher that lie beside signals in the shards, as members NAME.npy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from datamodules.decode import DecodeError, decode
from datamodules.remote import shown
from datamodules.shards import ShardSet
from mmtok.schema import ConfigError

if TYPE_CHECKING:
    from datamodules.module import ShardDataModule


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


def require_teachers(module: ShardDataModule, teacher: str) -> None:
    """Refuse sets of a data module without the features of its teacher; an empty name asks for none.

    Raises:
        ConfigError: a set holds none.
    """
    for one in [*module.training_sets(), *module.validation_sets()] if teacher else ():
        require_teacher(one, teacher)


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


def check_frames(features: np.ndarray, samples: int, hop: int, teacher: str) -> None:
    """Refuse features (F, T) of a sound of another length: they would be read as silence, or of another moment.

    Args:
        features: of the whole sound.
        samples: of the sound.
        hop: samples of a frame.
        teacher: whose they are.

    Raises:
        DecodeError: they are more than two frames too many or too few, which edges and resampling may account for.
    """
    wanted = ceil(samples / hop)
    if abs(features.shape[1] - wanted) > 2:
        raise DecodeError(
            f"{member_of(teacher)} has {features.shape[1]} frames, and a sound of {samples} samples has {wanted}. "
            "See data.teacher_rate"
        )


def check_alike(features: Sequence[np.ndarray], keys: Sequence[str], teacher: str, axes: int) -> None:
    """Refuse a batch whose samples have features of several shapes.

    Args:
        features: of each sample.
        keys: of the samples.
        teacher: whose they are.
        axes: how many of the first ones must agree; frames of sounds need not.

    Raises:
        ConfigError: names two samples.
    """
    for one, key in zip(features, keys, strict=True):
        if one.shape[:axes] != features[0].shape[:axes] or one.ndim != features[0].ndim:
            raise ConfigError(
                f"{member_of(teacher)} has shape {features[0].shape} in sample {keys[0]}, and {one.shape} in {key}: of "
                "two teachers? Write one's: mmtok shards features."
            )
