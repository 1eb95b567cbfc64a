"""Texts as every tokenizer of them takes and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_text(source: Any) -> list[str]:
    """A path, bytes of UTF-8, a string or several -> x.

    Raises:
        ValueError: it is no UTF-8.
    """
    name = str(source) if isinstance(source, Path) else "this"
    if isinstance(source, Path):
        source = source.read_bytes()
    if isinstance(source, bytes):
        try:
            return [source.decode()]
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is no UTF-8: byte {error.start}. Convert it first: iconv -t UTF-8.") from error
    return [source] if isinstance(source, str) else list(source)


def check_texts(x: Any) -> None:
    """Refuse what is no list of texts, and texts that have no bytes.

    Raises:
        ValueError: names what is wrong.
    """
    if isinstance(x, str) or not isinstance(x, Sequence) or not all(isinstance(text, str) for text in x):
        raise ValueError(f"text is a list of strings, got {type(x).__name__}. Use [text].")
    for i, text in enumerate(x):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"text {i} holds half a surrogate pair at character {error.start}.") from error


def write_text(text: str, path: Path) -> None:
    """Write one text, its line ends as they are."""
    path.write_text(text, encoding="utf-8", newline="")
