"""Folders of a `config.json` and weights in safetensors: a tokenizer as `mmtok import` leaves it, or a model of another
library (`formats.py`). `read_model` reads both. Nothing is unpickled.

Ours has `model_type: mmtok`, and the blocks `tokenizer` and `quantizer` of a recipe beside the state they build.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmtok import __version__
from mmtok.export.formats import format_of, from_native, to_native
from mmtok.registry import load_plugins
from mmtok.schema import to_plain
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.exported import build_exported

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR = "preprocessor_config.json"
OURS = "mmtok"
"""`model_type` of folders written here."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def is_model(path: str | Path) -> bool:
    """Whether a path is a folder of this kind; run directories have no config.json."""
    return (Path(path) / CONFIG).is_file()


def read_model(path: str | Path) -> Tokenizer:
    """The tokenizer of a folder, on the CPU, in eval mode and without gradients.

    Raises:
        ValueError: a file is missing, damaged or a pickle; or the model cannot be expressed; says which and why.
    """
    folder = Path(path)
    config = _json(folder / CONFIG)
    state = _weights(folder)
    try:
        tokenizer = (
            _from_ours(config, state)
            if config.get("model_type") == OURS
            else from_native(format_of(config), config, state)
        )
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return tokenizer.requires_grad_(False).eval()


def _from_ours(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Tokenizer:
    if missing := [name for name in ("tokenizer", "quantizer") if name not in config]:
        raise ValueError(f"its {CONFIG} has no '{missing[0]}'.")
    load_plugins(config.get("plugins", ()))
    tokenizer = build_exported(config)
    try:
        tokenizer.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the {CONFIG}. {error}") from error
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
    _write(Path(path), {PREPROCESSOR: files.preprocessor, CONFIG: files.config}, state)


def _write(folder: Path, files: Mapping[str, Mapping[str, Any]], state: Mapping[str, Tensor]) -> None:
    """Weights first and config.json last, each by a rename: a folder that was left half written is none."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{WEIGHTS}.tmp"
    try:
        save_file(dict(state), draft, {"format": "pt"})
    except SafetensorError as error:
        draft.unlink(missing_ok=True)
        raise OSError(errno.EIO, f"cannot be written ({error})", str(folder / WEIGHTS)) from error
    os.replace(draft, folder / WEIGHTS)
    for name, content in files.items():
        draft = folder / f"{name}.tmp"
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, folder / name)


def _weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of one file, or of those that an index names."""
    if (folder / WEIGHTS).is_file():
        return _tensors(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        if pickles:
            raise ValueError(
                f"{folder / pickles[0]} is a pickle, which could run anything when it is read, and is not. "
                f"Save the model as {WEIGHTS} where you trust it: model.save_pretrained(FOLDER)."
            )
        raise ValueError(f"there is no {WEIGHTS} in {folder}.")
    places = _json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{folder / INDEX} has no weight_map of file names.")
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{folder / INDEX} names '{name}', which is no safetensors file in its folder.")
        state |= _tensors(folder / name)
    if lost := sorted(places.keys() - state.keys()):
        raise ValueError(f"{folder / INDEX} promises '{lost[0]}', which is in none of its files.")
    return state


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}.") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error}).") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping, got {type(content).__name__}.")
    return content
