"""Pictures from Debian packages, by name: real data for a machine that reaches a package mirror and nothing else."""

from __future__ import annotations

import difflib
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from datamodules.build.deb import Deb, fetch
from datamodules.build.files import extension_of, file_entries, kind_of
from datamodules.build.kinds import KINDS
from datamodules.build.pictures import encode, on_white, open_picture
from datamodules.build.source import ANYTHING, Entry, Source, Wanted, file_sha256
from mmtok.schema import suggest

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


@dataclass(frozen=True)
class Preset:
    """A package, and how its files become samples."""

    package: str
    entries: Callable[[Deb], list[Entry]]
    licence: str
    about: str
    kind: str = "images"


PRESETS = {
    "endless-sky": Preset(
        "endless-sky-data", endless_sky, "public domain and CC-BY-SA, per file", "273 photographs, 720 x 360, 70 MB"
    ),
    "endless-sky-large": Preset(
        "endless-sky-high-dpi",
        endless_sky,
        "public domain and CC-BY-SA, per file",
        "the same at 1440 x 720, 136 MB",
    ),
    "fashion-mnist": Preset("dataset-fashion-mnist", fashion_mnist, "MIT", "70,000 grey pictures, 28 x 28, 31 MB"),
    "tuxpaint-stamps": Preset("tuxpaint-stamps-default", tuxpaint_stamps, "GPL-2", "796 stamps with captions, 161 MB"),
}
"""What `debian:NAME` knows by heart. Any other name is taken as the name of a package."""


class DebianSource(Source):
    """A preset, a package by its name, or a .deb file at hand."""

    def __init__(self, name: str, cache: Path, wanted: Wanted = ANYTHING) -> None:
        """Fetches the package, unless `name` is the path of a .deb.

        Raises:
            ValueError: it cannot be had; says what to do instead.
        """
        preset = PRESETS.get(name)
        if name.endswith(".deb"):
            path = Path(name)
        elif preset or re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", name):
            path = self._fetch(name, preset.package if preset else name, cache)
        else:
            raise ValueError(f"'{name}' cannot be the name of a Debian package.{suggest(name, PRESETS)}")
        self.deb, self.wanted = Deb(path), wanted
        self.preset = preset or next(
            (p for p in PRESETS.values() if p.package == self.deb.package and wanted.kind in (None, p.kind)), None
        )
        provenance = {
            "kind": "debian",
            "package": self.deb.package,
            "version": self.deb.version,
            "sha256": file_sha256(path),
            "bytes": path.stat().st_size,
            "licence": self.preset.licence if self.preset else "see the package's copyright file",
        }
        super().__init__(provenance | {"homepage": self.deb.fields.get("Homepage", "")})

    def entries(self) -> list[Entry]:
        if self.preset:
            self.kind = self.preset.kind
            return self.preset.entries(self.deb)
        extensions = {"txt"}.union(*(kind.extensions for kind in KINDS.values()))
        found = {
            name.removeprefix("usr/share/"): data
            for name, data in self.deb.files(lambda name: extension_of(name) in extensions)
        }
        try:
            self.kind = kind_of(found, self.wanted)
        except ValueError as error:
            raise ValueError(f"the package '{self.deb.package}' {error}.{suggest('', PRESETS)}") from error
        return file_entries(found, found.__getitem__, self.kind)

    @staticmethod
    def _fetch(name: str, package: str, cache: Path) -> Path:
        try:
            return fetch(package, cache)
        except ValueError as error:
            if name in PRESETS:
                raise
            near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.6)
            hint = f" Did you mean debian:{near[0]}?" if near else ""
            raise ValueError(f"{error}{hint}") from error


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
    # First line English, then "ll.utf8=caption"; other encodings repeat what is there in UTF-8.
    english, *others = captions.decode(errors="replace").splitlines() or [""]
    translations = (line.partition(".utf8=") for line in others if ".utf8=" in line)
    texts = {language: text.strip() for language, _, text in translations if text.strip()}
    if english.strip():
        parts["txt"] = english.strip().encode()
        parts["json"] = json.dumps({"captions": {"en": english.strip()} | texts}, ensure_ascii=False).encode()
    return parts
