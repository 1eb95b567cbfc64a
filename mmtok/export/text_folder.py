"""A vocabulary of text that was exported (`text.py`), read back."""

from __future__ import annotations

from pathlib import Path

import torch

from mmtok.export.sealed import refuse_changed
from mmtok.schema import read_json
from mmtok.tokenizers.base import build_tokenizer
from mmtok.tokenizers.subword import TOKENIZER, SubwordTokenizer

FILE = "mmtok_text.json"
"""In each of them: what it was made with."""


def read_text(folder: Path) -> SubwordTokenizer:
    """What `write_text` wrote.

    Raises:
        ValueError: a file is missing, damaged, or was changed.
    """
    refuse_changed(folder, (FILE, TOKENIZER))
    about = read_json(folder / FILE)
    if not (folder / TOKENIZER).is_file():
        raise ValueError(f"there is no {folder / TOKENIZER}. Export it anew.")
    tokenizer = build_tokenizer(about.get("tokenizer", {}), None)
    if not isinstance(tokenizer, SubwordTokenizer):
        raise ValueError(f"{folder / FILE} is of no tokenizer of text.")
    tokenizer.model = torch.frombuffer(bytearray((folder / TOKENIZER).read_bytes()), dtype=torch.uint8)
    tokenizer.loaded()
    return tokenizer.eval()
