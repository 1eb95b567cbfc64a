"""Tux Paint's stamps as two shard sets with the same keys: a picture, its name spoken, and its caption beside both.

A sample is a thing in a language: `animals_birds_owl-fr` is a picture of an owl, "Un hibou." spoken, and as text
`fr: Un hibou.` Things are held out whole, in all languages, and with everything that has the same caption.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.build.names import open_source
from datamodules.build.package_pictures import stamp_group
from datamodules.build.pictures import encode, open_picture
from datamodules.build.sounds import to_flac
from datamodules.build.source import Entry, Wanted, fraction_of
from datamodules.clip import loudness, resample, to_channels
from datamodules.sound import SOUNDS, read_sound
from datamodules.writer import ShardWriter
from mmtok.schema import ConfigError

LANGUAGES = ("en", "fr", "ca", "es", "ro")
"""One alphabet, a voice each. English has captions for all things and 66 spoken names."""
SIDE = 32
"""Pixels of a picture's side."""
RATE = 8000
"""Samples a second."""
SECONDS = (0.2, 1.6)
"""Shortest and longest name that is taken, without the silence around it."""
LONGEST_CAPTION = 60
"""Characters. Most of the longer ones explain how chess is played."""
HELD_OUT = 0.15
LICENCE = "GPL-2"


@dataclass
class Thing:
    """A stamp with what is said of it."""

    name: str
    topic: str
    picture: Image.Image
    captions: dict[str, str]
    """Language -> first sentence."""
    spoken: dict[str, Entry] = field(default_factory=dict)
    """Language -> its name, not decoded yet."""
    held_out: bool = False


def write_shards(out: Path, deb: Path | None = None) -> None:
    """Write images/ and sounds/, each with train/ and val/, and things.json.

    Args:
        out: folder.
        deb: the package `tuxpaint-stamps-default`; None fetches it.
    """
    things = read_things(deb)
    hold_out(things)
    topics = tuple(sorted({thing.topic for thing in things}))
    source = "debian:tuxpaint-stamps-default"
    for split in ("train", "val"):
        chosen = sorted((thing for thing in things if thing.held_out == (split == "val")), key=_mixed)
        shared = {"split": split, "classes": topics, "source": source, "licence": LICENCE}
        with ShardWriter(out / "images" / split, kind="images", **shared) as writer:
            for thing in chosen:
                for language, caption in thing.captions.items():
                    text = {"txt": caption_line(language, caption), "cls": str(topics.index(thing.topic)).encode()}
                    writer.add(f"{thing.name}-{language}", text | {"png": picture(thing, language)})
        with ShardWriter(out / "sounds" / split, kind="audio", **shared) as writer:
            for thing in chosen:
                for language, sound in sounds(thing):
                    text = {"txt": caption_line(language, thing.captions[language])}
                    writer.add(f"{thing.name}-{language}", text | {"flac": to_flac(sound, RATE)})


def read_things(deb: Path | None) -> list[Thing]:
    """Every stamp with a caption in English, and its spoken names."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmtok"
    stamps, speech = (
        open_source(f"debian:tuxpaint-{name}" if deb is None else str(deb), cache, Wanted(kind=kind)).entries()
        for name, kind in (("stamps", "images"), ("speech", "audio"))
    )
    things = {}
    for entry in stamps:
        parts = entry.read()
        said = json.loads(parts["json"])["captions"] if "json" in parts else {}
        captions = {language: first_sentence(said[language]) for language in LANGUAGES if language in said}
        captions = {language: text for language, text in captions.items() if 0 < len(text) <= LONGEST_CAPTION}
        if "en" in captions:
            things[entry.key] = Thing(entry.key, entry.label or "", open_picture(parts["png"]), captions)
    for entry in speech:
        name = re.sub(r"_desc(_\w+)?$", "", entry.key.partition("stamps/")[2])
        if name in things and entry.label in things[name].captions:
            things[name].spoken[entry.label] = entry
    return list(things.values())


def hold_out(things: list[Thing]) -> None:
    """Choose the things that no training sees. Variants of one drawing, and all that is called the same, stay together:
    a letter filled and outlined is one recording.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for thing in things:
        first, second = root(f"drawing:{stamp_group(thing.name)}"), root(f"caption:{thing.captions['en'].lower()}")
        parent[max(first, second)] = min(first, second)
    for thing in things:
        thing.held_out = fraction_of(f"split:{root(f'drawing:{stamp_group(thing.name)}')}") < HELD_OUT


def first_sentence(text: str) -> str:
    """What is before the first full stop, with it; spaces as one."""
    return re.sub(r"\s+", " ", re.split(r"(?<=[.!?])\s", text.strip())[0])


def caption_line(language: str, caption: str) -> bytes:
    """As the language model reads it: the language first, so that it can be asked for."""
    return f"{language}: {caption}".encode()


def picture(thing: Thing, language: str) -> bytes:
    """The stamp in a white square, as PNG. Of a thing to train on, each language has a view of its own."""
    view = thing.picture.convert("RGB")
    places = np.array([1.0, 0.5, 0.5])
    if not thing.held_out and language != "en":
        draw = np.random.default_rng(int(fraction_of(f"{thing.name}-{language}") * 2**53))
        places = draw.random(3) * [0.3, 1.0, 1.0] + [0.7, 0.0, 0.0]
        if thing.topic != "symbols" and draw.random() < 0.5:  # letters are no letters in a mirror
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = places[0] * SIDE / max(view.size)
    size = [max(1, round(side * scale)) for side in view.size]
    square = Image.new("RGB", (SIDE, SIDE), "white")
    left, top = (int((SIDE - side) * place + 0.5) for side, place in zip(size, places[1:], strict=True))
    square.paste(view.resize((size[0], size[1]), Image.Resampling.LANCZOS), (left, top))
    return encode(square, "png")


def sounds(thing: Thing) -> Iterator[tuple[str, np.ndarray]]:
    """(language, (1, S) float32) of each spoken name that is neither empty nor too long."""
    for language, entry in sorted(thing.spoken.items()):
        parts = entry.read()
        extension = next(name for name in parts if name in SOUNDS)
        try:
            read = read_sound(parts[extension], extension)
        except ConfigError:
            raise
        except ValueError:  # a damaged file
            continue
        sound = trim(to_channels(resample(read.samples, read.sample_rate, RATE), 1))
        if SECONDS[0] <= sound.shape[1] / RATE <= SECONDS[1]:
            yield language, level(sound)


def trim(sound: np.ndarray) -> np.ndarray:
    """(1, S) without the silence before and after: 20 ms are silent where they are 26 dB below the loudest."""
    step = RATE // 50
    blocks = sound[0, : sound.shape[1] // step * step].reshape(-1, step)
    power = np.square(blocks).mean(1)
    loud = np.flatnonzero(power > power.max(initial=0.0) / 400)
    return sound[:, loud[0] * step : (loud[-1] + 1) * step] if len(loud) else sound[:, :0]


def level(sound: np.ndarray) -> np.ndarray:
    """(1, S) at -20 dB of full scale, or less where it would be clipped: voices differ by 20 dB here."""
    gain = min(10 ** ((-20 - loudness(sound)) / 20), 0.95 / float(np.abs(sound).max()))
    return sound * np.float32(gain)


def _mixed(thing: Thing) -> float:
    return fraction_of(thing.name)
