"""Folders of a `config.json` and weights in safetensors: a tokenizer as `mmtok import` leaves it, or a model of another
library (`formats.py`). `read_model` reads both. Nothing is unpickled.

Ours has `model_type: mmtok`, and the blocks `tokenizer` and `quantizer` of a recipe beside the state they build. A
vocabulary of text is another folder of ours, which transformers reads without a config.json (`text_folder.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok import __version__
from mmtok.export.formats import FORMATS, WRITTEN, format_of, from_native, to_native
from mmtok.export.plugins import load_trusted, refuse_unknown
from mmtok.export.reading import CONFIG, PREPROCESSOR, read_folder
from mmtok.export.reading import TRANSFORMERS_WEIGHTS as WEIGHTS
from mmtok.export.sealed import refuse_changed
from mmtok.export.text_folder import FILE as TEXT
from mmtok.export.text_folder import read_text
from mmtok.export.token_spec import FILE as TOKEN_SPEC
from mmtok.schema import read_json, to_plain
from mmtok.tensorfile import write_tensors
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.exported import build_exported

OURS = "mmtok"
"""`model_type` of folders written here."""


def marker_of(path: str | Path) -> str | None:
    """The file that says what a folder holds; None where there is none. Run directories have neither."""
    return next((name for name in (TEXT, CONFIG) if (Path(path) / name).is_file()), None)


def is_model(path: str | Path) -> bool:
    """Whether a path is a folder of this kind."""
    return marker_of(path) is not None


def read_model(path: str | Path, form: str | None = None, *, plugins: bool = True) -> Tokenizer:
    """The tokenizer of a folder, on the CPU, in eval mode and without gradients.

    Args:
        path: the folder.
        form: a key of `formats.FORMATS`; None means what the config.json says.
        plugins: import those it names, where they are installed; else only those imported already can be used.

    Raises:
        ValueError: a file is missing, damaged, a pickle, or not as the bundle has it; or the model cannot be
            expressed; says which and why.
    """
    folder = Path(path)
    if form is None and marker_of(folder) == TEXT:
        return read_text(folder)
    named = None if form else read_json(folder / CONFIG)
    ours = named is not None and named.get("model_type") == OURS
    if ours:
        refuse_changed(folder, (CONFIG, WEIGHTS, TOKEN_SPEC))
    try:
        if named is not None and not ours:
            form = format_of(named)
        config, state = FORMATS[form].read(folder) if form else read_folder(folder)
        tokenizer = from_native(form, config, state) if form else _from_ours(config, state, folder, plugins)
    except ValueError as error:
        # What is wrong with a file says its path already.
        raise error if str(folder) in str(error) else ValueError(f"{folder}: {error}") from error
    return tokenizer.requires_grad_(False).eval()


def _from_ours(config: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path, plugins: bool) -> Tokenizer:
    if missing := [name for name in ("tokenizer", "quantizer") if name not in config]:
        raise ValueError(f"its {CONFIG} has no '{missing[0]}'.")
    named = config.get("plugins") or ()
    if plugins:
        load_trusted(named, folder)
    else:
        refuse_unknown(named)
    tokenizer = build_exported(config)
    try:
        tokenizer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        # torch writes a line for each tensor, of which there may be hundreds.
        first, *more = (line.strip(" \t.") for line in str(error).splitlines()[1:] or [str(error)])
        count = f", and {len(more)} more" if more else ""
        raise ValueError(f"the weights do not fit the {CONFIG}: {first}{count}.") from error
    return tokenizer


def write_model(tokenizer: Tokenizer, path: str | Path, *, plugins: Sequence[str] = (), source: str = "") -> None:
    """Write a tokenizer as a folder that `read_model` reads to the same fingerprint.

    Args:
        tokenizer: as trained or imported, not an optimized copy.
        path: of the folder; files in it are replaced.
        plugins: modules that register the names in its configuration.
        source: where it comes from, for people.

    Raises:
        OSError: it cannot be written.
    """
    config = {
        "model_type": OURS,
        "mmtok_version": __version__,
        "source": source,
        "plugins": list(plugins),
        "tokenizer": to_plain(tokenizer.config),
        "quantizer": to_plain(tokenizer.quantizer.config),
    }
    state = {name: value.detach().cpu().contiguous().clone() for name, value in tokenizer.state_dict().items()}
    _write(Path(path), {CONFIG: config}, state)


def write_native(tokenizer: Tokenizer, path: str | Path, form: str) -> None:
    """Write a tokenizer as the folder of another library's model.

    Args:
        tokenizer: as trained or imported, not an optimized copy.
        path: of the folder; files in it are replaced.
        form: of which class, a key of `formats.WRITTEN`.

    Raises:
        ValueError: the model cannot express it; names the fields.
        OSError: it cannot be written.
    """
    files, state = to_native(tokenizer, form)
    beside = {PREPROCESSOR: files.preprocessor} if files.preprocessor else {}
    _write(Path(path), beside | {CONFIG: files.config}, state, WRITTEN[form].WEIGHTS)


def _write(
    folder: Path, files: Mapping[str, Mapping[str, Any]], state: Mapping[str, Tensor], weights: str = WEIGHTS
) -> None:
    """Weights first and config.json last, each by a rename: a folder that was left half written is none."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{weights}.tmp"
    write_tensors(state, draft, {"format": "pt"})
    os.replace(draft, folder / weights)
    for name, content in files.items():
        draft = folder / f"{name}.tmp"
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, folder / name)
