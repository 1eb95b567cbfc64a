"""Debian packages of pictures whose files need more than a look at their names: what is in them, as entries."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import PurePosixPath

import numpy as np

from datamodules.build.deb import Deb
from datamodules.build.pictures import encode, on_white, open_picture
from datamodules.build.source import Entry

Parts = dict[str, bytes]
FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot")


def endless_sky(deb: Deb) -> list[Entry]:
    """Photographs of landscapes and cities; the class is what the name starts with, the group the photograph."""
    found = dict(deb.files(lambda name: "/images/land/" in name and name.endswith(".jpg")))
    entries = []
    for name in sorted(found):
        # The package of larger pictures calls the same photographs NAME@2x: same group, so same side of the split.
        stem = PurePosixPath(name).stem.removesuffix("@2x")
        topic = re.match(r"[a-z]+", stem)
        label = topic.group() if topic else "other"
        entries.append(Entry(stem, group=stem, read=partial(_as_it_is, {"jpg": found[name]}), label=label))
    return entries


def tuxpaint_stamps(deb: Deb) -> list[Entry]:
    """Drawings and cut-out photographs on white with captions in many languages; the class is the topic's folder."""
    root = "usr/share/tuxpaint/stamps/"
    found = dict(deb.files(lambda name: name.startswith(root) and name.endswith((".png", ".txt"))))
    names = sorted(name.removeprefix(root).removesuffix(".png") for name in found if name.endswith(".png"))
    entries = []
    for name in names:
        caption = found.get(f"{root}{name}.txt") or found.get(f"{root}{name.removesuffix('_mirror')}.txt") or b""
        entries.append(
            Entry(
                name,
                group=stamp_group(name),
                read=partial(_stamp, found[f"{root}{name}.png"], caption),
                label=name.partition("/")[0],
            )
        )
    return entries


def tuxpaint_spoken(deb: Deb, names: Iterable[str]) -> dict[str, bytes]:
    """What is said in spoken names of stamps: the caption of the stamp in the language of the sound."""
    root = "usr/share/"
    found = dict(deb.files(lambda name: name.startswith(f"{root}tuxpaint/stamps/") and name.endswith(".txt")))
    spoken = {}
    for name in names:
        stamp, _, language = PurePosixPath(name).with_suffix("").as_posix().partition("_desc")
        text = captions_of(found.get(f"{root}{stamp}.txt", b"")).get(language.lstrip("_") or "en")
        if text:
            spoken[str(PurePosixPath(name).with_suffix(".txt"))] = text.encode()
    return spoken


def fashion_mnist(deb: Deb) -> list[Entry]:
    """Grey pictures of clothes, 28 x 28, with the test set of its authors."""
    found = {PurePosixPath(name).name: data for name, data in deb.files(lambda name: name.endswith("-ubyte.gz"))}
    entries = []
    for split, prefix in (("train", "train"), ("test", "t10k")):
        pictures = read_idx(found[f"{prefix}-images-idx3-ubyte.gz"])
        labels = read_idx(found[f"{prefix}-labels-idx1-ubyte.gz"])
        for i, (picture, label) in enumerate(zip(pictures, labels.tolist(), strict=True)):
            key = f"{split}/{i:05d}"
            entries.append(Entry(key, group=key, read=partial(_grey, picture), label=FASHION[label], split=split))
    return entries


def stamp_group(name: str) -> str:
    """The drawing behind a stamp: mirrored and numbered variants, and the same name in two topics, count as one.

    >>> stamp_group("town/roadsigns/xing_school_mirror"), stamp_group("animals/frog-1"), stamp_group("symbols/math/7")
    ('xing_school', 'frog', '7')
    """
    stem = PurePosixPath(name).name.lower().removesuffix("_mirror")
    return re.sub(r"[-_]?\d+$", "", stem) or stem


def read_idx(data: bytes) -> np.ndarray:
    """Yann LeCun's idx format, gzipped, of unsigned bytes.

    Raises:
        ValueError: it is something else.
    """
    plain = gzip.decompress(data)
    if plain[:3] != b"\0\0\x08":
        raise ValueError(f"an idx file of bytes starts with 0 0 8, this one with {list(plain[:3])}.")
    shape = np.frombuffer(plain, ">u4", plain[3], 4)
    return np.frombuffer(plain, np.uint8, offset=4 + 4 * plain[3]).reshape(shape.tolist())


def _as_it_is(parts: Parts) -> Parts:
    return dict(parts)


def _grey(picture: np.ndarray) -> Parts:
    from PIL import Image

    return {"png": encode(Image.fromarray(picture), "png")}


def _stamp(picture: bytes, captions: bytes) -> Parts:
    """The picture on white; the English caption as .txt, all of them as .json."""
    with open_picture(picture) as source:
        parts = {"png": encode(on_white(source), "png")}
    texts = captions_of(captions)
    if "en" in texts:
        parts["txt"] = texts["en"].encode()
        parts["json"] = json.dumps({"captions": texts}, ensure_ascii=False).encode()
    return parts


def captions_of(content: bytes) -> dict[str, str]:
    """Language -> caption: first line English, then "ll.utf8=caption"; other encodings repeat what is in UTF-8."""
    english, *others = content.decode(errors="replace").splitlines() or [""]
    translations = (line.partition(".utf8=") for line in others if ".utf8=" in line)
    texts = {"en": english} | {language: text for language, _, text in translations}
    return {language: text.strip() for language, text in texts.items() if text.strip()}
