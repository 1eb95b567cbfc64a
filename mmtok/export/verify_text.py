"""Whether an exported vocabulary of text keeps what it promises: its files, and equal ids here and in transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmtok.export.promises import Broken, Step, look_at, manifest_kept, strangers, where_mmtok_is_absent
from mmtok.export.text import GOLDEN, NEEDED
from mmtok.export.text_folder import FILE, read_text
from mmtok.schema import read_json
from mmtok.tokenizers.subword import SubwordTokenizer


class _Folder:
    """A vocabulary, and what is read of it once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokenizer: SubwordTokenizer
        self.golden: list[dict[str, Any]] = []


def verify_text(folder: Path, say: Callable[[str], None]) -> list[Broken]:
    """Look at a vocabulary; the promises that are broken, none where all is well."""
    return look_at(_Folder(folder), _STEPS, say)


def _files(one: _Folder) -> Iterator[str]:
    yield from manifest_kept(one.folder, NEEDED)
    yield from strangers(one.folder)


def _vocabulary(one: _Folder) -> Iterator[str]:
    one.tokenizer = read_text(one.folder)
    about = read_json(one.folder / FILE)
    is_so = {"vocabulary": one.tokenizer.spec.codebook_sizes[0], "fingerprint": one.tokenizer.fingerprint()}
    for name, value in is_so.items():
        if about[name] != value:
            yield f"{FILE} says {name}={about[name]!r}, and it is {value!r}"
    control = one.tokenizer.is_control()
    for name in one.tokenizer.config.special:
        number = one.tokenizer.engine.token_to_id(name)
        if number is None or not control[number]:
            yield f"{name} is no control token of it"


def _golden(one: _Folder) -> Iterator[str]:
    one.golden = read_json(one.folder / GOLDEN)["items"]
    if not one.golden:
        yield f"{GOLDEN} has no items"
    rows = one.tokenizer.tokens([item["text"] for item in one.golden])
    for number, (item, row) in enumerate(zip(one.golden, rows, strict=True)):
        if row != item["ids"]:
            yield f"text {number} has other ids with mmtok: {_apart(row, item['ids'])}"
        exact = one.tokenizer.config.normalize == "none"
        if one.tokenizer.texts([row])[0] != item["back"] or (exact and item["back"] != item["text"]):
            yield f"text {number} does not come back"


def _in_transformers(one: _Folder) -> Iterator[str]:
    if importlib.util.find_spec("transformers") is None:
        yield "transformers is not installed here, so it cannot be tried. Install it: pip install 'mmtok[llm]'"
        return
    found, wrong = where_mmtok_is_absent(one.folder, "text", (), read_json)
    if wrong:
        yield wrong
        return
    size = one.tokenizer.spec.codebook_sizes[0]
    if found["vocabulary"] != size:
        yield f"AutoTokenizer has {found['vocabulary']:,} tokens, and the vocabulary {size:,}"
    for number, (item, theirs) in enumerate(zip(one.golden, found["items"], strict=True)):
        spells = any(name in item["text"] for name in one.tokenizer.config.special)
        for ids in (theirs["ids"], item["ids"] if spells else theirs["own"]):
            if ids != item["ids"]:
                yield f"text {number} has other ids with AutoTokenizer: {_apart(ids, item['ids'])}"
                break
        if theirs["back"] != item["back"]:
            yield f"text {number} does not come back from AutoTokenizer"


def _apart(found: list[int], wanted: list[int]) -> str:
    """Where two rows differ first."""
    at = next((i for i, (a, b) in enumerate(zip(found, wanted, strict=False)) if a != b), min(len(found), len(wanted)))
    return f"{found[at : at + 3]} where {wanted[at : at + 3]} should be, from place {at} on"


_STEPS: tuple[Step[_Folder], ...] = (
    (("files", _files),),
    (("vocabulary", _vocabulary),),
    (("golden texts", _golden),),
    (("transformers", _in_transformers),),
)
