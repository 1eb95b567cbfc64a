"""Teachers of sounds: cepstra, and WavLM's kind by folder. Frames are those of `datamodules.build.features`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from datamodules.build.features import FEATURES
from datamodules.clip import resample
from datamodules.sound import SOUNDS, read_sound
from mmtok.schema import read_json
from mmtok.teachers.base import Teacher, from_transformers, register_teacher

RATE = 16_000
"""Samples a second that networks of speech are trained on."""
HOP = 320
"""Samples of one of their frames."""


def samples(extension: str, data: bytes, rate: int | None = None) -> tuple[np.ndarray, int]:
    """A sound as (C, S) float32 at its own rate, or at another."""
    sound = read_sound(data, extension)
    if rate is None or rate == sound.sample_rate:
        return sound.samples, sound.sample_rate
    return resample(sound.samples, sound.sample_rate, rate), rate


@register_teacher
class MFCC(Teacher):
    """The cepstra that `shards build --features mfcc` writes."""

    name = "mfcc"
    content = SOUNDS

    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        return [FEATURES["mfcc"].compute(*samples(extension, data)) for extension, data in signals]

    def about(self) -> dict[str, Any]:
        return {"about": FEATURES["mfcc"].about, "rate": FEATURES["mfcc"].rate}


@register_teacher
class WavLM(Teacher):
    """A network of speech (Chen et al. 2021, arXiv 2110.13900; HuBERT alike), the mean of all its layers.

    SpeechTokenizer distils that mean of HuBERT's, Mimi WavLM's last layer.
    """

    name = "wavlm"
    content = SOUNDS
    folder = True

    def __init__(self, folder: Path) -> None:
        [model] = from_transformers(self.name, folder, ("wavlm", "hubert", "wav2vec2", "unispeech-sat"), "AutoModel")
        self.model = model.eval()
        # Models of some sizes heard every sound at one loudness, and are deaf to those of another.
        said = folder / "preprocessor_config.json"
        self.normalise = said.is_file() and bool(read_json(said, "Fetch it again.").get("do_normalize", False))

    @torch.inference_mode()
    def features(self, signals: Sequence[tuple[str, bytes]]) -> list[np.ndarray]:
        return [self._one(*samples(extension, data, RATE)) for extension, data in signals]

    def _one(self, sound: np.ndarray, rate: int) -> np.ndarray:
        mono = torch.from_numpy(sound.mean(0))
        if self.normalise:
            mono = (mono - mono.mean()) / (mono.var(correction=0) + 1e-7).sqrt()
        frames = -(-len(mono) // HOP)
        # Its convolutions see 400 samples: 40 on either side of a frame's own, and the last frame whole.
        padded = F.pad(mono, (40, frames * HOP + 40 - len(mono)))[None]
        layers = self.model(padded, output_hidden_states=True).hidden_states
        found = torch.stack(layers[1:]).mean(0)[0].T
        return found[:, :frames].float().numpy()

    def about(self) -> dict[str, Any]:
        loudness = ", sounds of mean 0 and deviation 1" if self.normalise else ""
        return {"about": f"mean of all layers of {self.model.config.model_type}{loudness}", "rate": RATE / HOP}
