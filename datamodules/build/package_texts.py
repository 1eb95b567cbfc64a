"""Debian packages of texts whose files hold many of them."""

from __future__ import annotations

import re
from functools import partial
from pathlib import PurePosixPath

from datamodules.build.deb import Deb
from datamodules.build.source import Entry

ROOT = "usr/share/games/fortunes/"


def fortunes(deb: Deb) -> list[Entry]:
    """Sayings, jokes and verses: files of texts that a line with a single % parts; the class is the language."""
    found = dict(deb.files(lambda name: name.startswith(ROOT) and not name.endswith((".dat", ".u8"))))
    entries = []
    for name in sorted(found):
        path = PurePosixPath(name.removeprefix(ROOT))
        language = path.parts[0] if len(path.parts) > 1 else "en"
        for i, text in enumerate(re.split(rb"(?m)^%\s*\n", found[name])):
            if text.strip():
                key = f"{language}/{path.name}/{i:05d}"
                entries.append(Entry(key, group=key, read=partial(_text, text), label=language))
    return entries


def _text(text: bytes) -> dict[str, bytes]:
    return {"txt": text}
