"""A vocabulary of text as a folder: `AutoTokenizer` and `mmtok.load` read it, `mmtok vocab merge --base` extends it.

No sources travel with it, unlike with a bundle: `tokenizers` is its engine everywhere. `mmtok_text.json` has what it
was made with, `golden.json` some difficult texts with their ids, and `bundle.json` the sha256 of each file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmtok import __version__
from mmtok.export.card import measured, origin
from mmtok.export.drafts import replaced
from mmtok.export.provenance import EVALUATION, Provenance, published
from mmtok.export.sealed import MANIFEST, VERSION, listed
from mmtok.export.text_folder import FILE
from mmtok.schema import to_plain
from mmtok.tokenizers.subword import TOKENIZER, TOKENIZER_CONFIG, SubwordTokenizer

GOLDEN, CARD = "golden.json", "README.md"
NEEDED = (FILE, TOKENIZER, TOKENIZER_CONFIG, GOLDEN, CARD)
TEXTS = (
    "", " ", "\n", "Hello world, it's 12345 o'clock.\r\n\r\n  indented\n", "  two\t\ttabs   and spaces  ",
    "naïve café, Bác Hồ; 日本語 かな 한국어 \U0001f642\U0001f1eb\U0001f1f7 ▁x", "1234567 3.14e-5 <0x41> \u00b2\u00bd",
    "def f(x):\n\treturn {x ** 2}  # ok", "e\u0301 \ufeff \u00a0 \u200d \U0010ffff \u0000", "a" * 300,
)  # fmt: skip
"""Golden texts, each to be found equal wherever the folder is loaded."""


def write_text(
    tokenizer: SubwordTokenizer, path: str | Path, *, provenance: Provenance | None = None, overwrite: bool = False
) -> Path:
    """Write a vocabulary, whole or not at all.

    Args:
        tokenizer: fitted.
        path: of the folder.
        provenance: what is known of its fit.
        overwrite: replace one that exists.

    Raises:
        ValueError: the folder is taken, or the tokenizer was not fitted.
        OSError: it cannot be written; nothing is left of it.
    """
    tokenizer.require_fitted()
    target, made = Path(path), published(provenance or Provenance())
    with replaced(target, MANIFEST, overwrite) as folder:
        tokenizer.save_engine(folder)
        _json(folder / FILE, description(tokenizer, made))
        _json(folder / GOLDEN, {"items": golden(tokenizer)})
        if made.evaluations:
            _json(folder / EVALUATION, made.evaluations)
        (folder / CARD).write_text("\n".join(card(tokenizer, made, target.name)) + "\n", encoding="utf-8")
        _json(folder / MANIFEST, {"version": VERSION, "mmtok": __version__, "files": listed(folder)})
    return target


def description(tokenizer: SubwordTokenizer, made: Provenance) -> dict[str, Any]:
    """`mmtok_text.json`: what rebuilds it here, and which texts it was fitted on."""
    return {
        "mmtok_version": __version__,
        "source": made.source,
        "plugins": list(made.plugins),
        "fingerprint": tokenizer.fingerprint(),
        "vocabulary": tokenizer.spec.codebook_sizes[0],
        "tokenizer": to_plain(tokenizer.config),
        "sample": dict(made.sample),
    }


def golden(tokenizer: SubwordTokenizer) -> list[dict[str, Any]]:
    """Difficult texts, and one that spells every control token: ids, and what they give back."""
    texts = [*TEXTS, " ".join(["spelled:", *tokenizer.config.special])]
    rows = tokenizer.tokens(texts)
    back = tokenizer.texts(rows)
    return [
        {"text": text, "ids": row, "back": again, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for text, row, again in zip(texts, rows, back, strict=True)
    ]


def card(tokenizer: SubwordTokenizer, made: Provenance, name: str) -> Iterator[str]:
    """`README.md`, line by line."""
    config, size = tokenizer.config, tokenizer.spec.codebook_sizes[0]
    control = int(tokenizer.is_control().sum())
    yield from ("---", "library_name: transformers", "tags: [mmtok, tokenizer, text]", "---", f"# {name}", "")
    yield f"A vocabulary of text, {size:,} tokens, exported by mmtok {__version__}."
    yield from ("", "```python", "from transformers import AutoTokenizer")
    yield 'tok = AutoTokenizer.from_pretrained("PATH/OF/THIS/FOLDER")'
    yield 'ids = tok("text").input_ids'
    yield from ("tok.decode(ids)", "```", "", "## What its ids mean", "", "| | |", "|---|---|")
    yield f"| model | {config.model}, alphabet of {config.alphabet} |"
    yield f"| words | {config.split}, {config.digits or 'any number of'} digits at most, normalize {config.normalize} |"
    names = ", ".join(f"`{name}`" for name in config.special)
    yield f"| tokens | {size - control:,} learned, {control:,} control or reserved: {names} |"
    yield ""
    exact = "Every text comes back byte for byte." if config.normalize == "none" else "Texts come back normalized."
    yield f"{exact} Text that spells a control token is text to mmtok;"
    yield "transformers makes the token of it, unless told otherwise: `tok(text, split_special_tokens=True)`."
    yield ""
    yield from measured(made.evaluations)
    yield from ("## Where it comes from", "")
    if made.sample.get("sha256"):
        yield f"- fitted on {made.sample['documents']:,} documents, {made.sample['bytes']:,} bytes, sha256"
        yield f"  `{made.sample['sha256']}`"
    yield from origin(tokenizer.fingerprint(), made)


def _json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
