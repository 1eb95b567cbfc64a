"""Sounds: bytes to crops of equal length, cut by draws that belong to the sample's slot."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.base import DataConfig, register_data
from datamodules.clip import Clip, loudness, to_channels
from datamodules.decode import DecodeError, decode, sound_extension
from datamodules.module import ShardDataModule
from datamodules.reader import SlotSample
from datamodules.sound import SOUNDS, require
from datamodules.teacher import check_alike, check_frames, member_of, read_features, require_teacher
from mmtok.schema import ConfigError

TRIES = 8
"""Places looked at for a crop that is loud enough, as in DAC's salient excerpts."""
SCALE = 32768
"""What 16 bits count from: half the bytes of float32 between processes, and exact for files of 16 bits."""


@dataclass(frozen=True, kw_only=True)
class AudioConfig(DataConfig):
    gives = "audio"
    sample_rate: int = 24_000
    """Samples a second that are trained on; files at other rates are resampled."""
    channels: int = 1
    """1 takes the mean of a file's channels; several repeat a single one."""
    seconds: float = 1.0
    """Length of a training crop; shorter clips are padded with zeros at their end."""
    crops: int = 1
    """Crops of each clip that is read and decoded. They stand in one batch, whose `batch_size` counts crops."""
    min_loudness: float | None = None
    """Loudness in dB below full scale (-60, say) a training crop should have; a clip without any counts as unreadable.
    None takes all. Silence is better left out when shards are built."""
    teacher: str = ""
    """Features beside each clip to give along, by the name of their member: mfcc for `mfcc.npy`, (F, T) each; or (F,)
    of the whole clip, what minilm makes of its transcript say."""
    teacher_rate: float = 50.0
    """Frames of them a second; crops then start on a frame, so `sample_rate` must be a multiple of it."""
    val_seconds: float = 10.0
    """Validation takes clips whole, up to this length."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample_rate < 1 or self.channels < 1 or self.crops < 1:
            raise ValueError(
                f"sample_rate={self.sample_rate}, channels={self.channels} and crops={self.crops} must be at least 1."
            )
        if self.samples < 1 or self.val_samples_each < 1:
            raise ValueError(f"seconds={self.seconds} and val_seconds={self.val_seconds} must be above 0.")
        if self.batch_size % self.crops:
            raise ValueError(
                f"batch_size={self.batch_size} counts crops, and must be a multiple of crops={self.crops}."
            )
        if self.teacher and not (self.teacher_rate > 0 and self.sample_rate % self.teacher_rate == 0):
            raise ValueError(
                f"teacher_rate={self.teacher_rate} does not divide sample_rate={self.sample_rate}, so that features "
                "cannot be cut where the samples are."
            )

    @property
    def samples(self) -> int:
        """Samples of a training crop."""
        return round(self.seconds * self.sample_rate)

    @property
    def val_samples_each(self) -> int:
        """Samples of a validation clip at most."""
        return round(self.val_seconds * self.sample_rate)

    @property
    def hop(self) -> int:
        """Samples between the places where a crop may start: those of a frame of the teacher."""
        return round(self.sample_rate / self.teacher_rate) if self.teacher else 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.samples,)

    @property
    def items_per_sample(self) -> int:
        return self.crops


class Crop(NamedTuple):
    samples: np.ndarray
    """(C, S) int16, zeros from `length` on."""
    length: int
    """Samples that are the clip's own."""
    teacher: np.ndarray | None
    """(F, T) float32, or None where none is asked for."""


@register_data("audio", AudioConfig)
class AudioModule(ShardDataModule):
    """Batches of "x" (B, C, S), "lengths" (B,), "label" (B,), -1 where there is none, "key"; "teacher" (B, F[, T]).

    In training S is the crop's length and the B crops stand by their number in the clip: first ones first.
    """

    config: AudioConfig
    content = SOUNDS

    def __init__(self, config: AudioConfig) -> None:
        super().__init__(config)
        self.extensions = (*SOUNDS, "cls", "npy") if config.teacher else (*SOUNDS, "cls")

    def plan(self, *, seed: int, accumulate: int) -> None:
        """As of the base; also finds packages and features that are missing."""
        super().plan(seed=seed, accumulate=accumulate)
        teacher, rate = self.config.teacher, self.config.teacher_rate
        for one in [*self.training_sets(), *self.validation_sets()]:
            listed = one.manifest.extensions
            require(tuple(name.rpartition(".")[2] for name in listed))
            if not teacher:
                continue
            require_teacher(one, teacher)
            said = one.manifest.provenance.get("features", {}).get(teacher, {}).get("rate", rate)
            if said != rate:
                member = member_of(teacher)
                raise ConfigError(f"data.teacher_rate={rate}, but {member} in {one.home} has {said} frames a second.")

    def item(self, sample: SlotSample, training: bool) -> tuple[list[Crop], int, str]:
        """One sample -> its crops, class, key."""
        config = self.config
        extension = sound_extension(sample.members)
        wanted = config.crops * config.samples if training else config.val_samples_each
        clip = Clip(sample.members[extension], extension, config.sample_rate, wanted)
        features = None
        if config.teacher:
            features = read_features(sample.members, config.teacher, (1, 2))
            if features.ndim == 2:
                check_frames(features, clip.length, config.hop, config.teacher)
        if training:
            draw = np.random.Generator(np.random.Philox(sample.seed))
            crops = [draw_crop(clip, features, config, draw) for _ in range(config.crops)]
        else:
            crops = [cut_crop(clip, features, config, 0, min(clip.length, config.val_samples_each))]
        label = decode("cls", sample.members["cls"]) if "cls" in sample.members else -1
        return crops, label, sample.key

    def batch(self, items: list[Any]) -> dict[str, Any]:
        """Items -> tensors of 16 bits, padded to the longest; the device makes numbers of them.

        Crops are laid out number by number, not clip by clip: the item i of rank r is then item r + i * world of the
        whole batch, as without crops, whatever the world.
        """
        ordered = [(crops[k], label, key) for k in range(len(items[0][0])) for crops, label, key in items]
        crops, labels, keys = zip(*ordered, strict=True)
        batch = {
            "x": torch.from_numpy(_stacked([crop.samples for crop in crops])),
            "lengths": torch.tensor([crop.length for crop in crops]),
            "label": torch.tensor(labels),
            "key": list(keys),
        }
        if self.config.teacher:
            features = [crop.teacher for crop in crops]
            check_alike(features, keys, self.config.teacher, 1)
            batch["teacher"] = torch.from_numpy(np.stack(features) if features[0].ndim == 1 else _stacked(features))
        return batch

    def to_signal(self, x: Tensor) -> Tensor:
        return x.float().div_(SCALE)


def draw_crop(clip: Clip, features: np.ndarray | None, config: AudioConfig, draw: np.random.Generator) -> Crop:
    """A crop from anywhere in the clip, its last place included; the next draw where it is too quiet.

    Raises:
        DecodeError: `TRIES` places were too quiet.
    """
    places = max(0, clip.length - config.samples) // config.hop + 1
    for start in config.hop * draw.integers(places, size=TRIES):
        crop = cut_crop(clip, features, config, int(start), config.samples)
        own = crop.samples[:, : crop.length] / SCALE
        if config.min_loudness is None or loudness(own) >= config.min_loudness:
            return crop
    raise DecodeError(f"{TRIES} crops of the clip were quieter than min_loudness={config.min_loudness} dB")


def cut_crop(clip: Clip, features: np.ndarray | None, config: AudioConfig, start: int, samples: int) -> Crop:
    """The crop that starts at `start`, a multiple of the teacher's hop, with its features."""
    cut = to_channels(clip.cut(start, samples), config.channels)
    x = np.zeros((config.channels, samples), dtype=np.int16)
    x[:, : cut.shape[1]] = (cut * SCALE).round().clip(-SCALE, SCALE - 1)
    teacher = features  # (F,) is of the whole clip
    if features is not None and features.ndim == 2:
        first, frames = start // config.hop, ceil(samples / config.hop)
        own = features[:, first : first + frames]
        teacher = np.pad(own, ((0, 0), (0, frames - own.shape[1])))
    return Crop(x, cut.shape[1], teacher)


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """(B, rows, longest), zeros behind what is shorter."""
    longest = max(array.shape[1] for array in arrays)
    stacked = np.zeros((len(arrays), arrays[0].shape[0], longest), dtype=arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[:, : array.shape[1]] = array
    return stacked
