"""Files of models as libraries leave them: `config.json` beside safetensors, in one file or several. Nothing is
unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mmtok.schema import read_json

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
TRANSFORMERS_WEIGHTS, DIFFUSERS_WEIGHTS = "model.safetensors", "diffusion_pytorch_model.safetensors"
"""What either library calls them; ours are called as those of transformers."""
_NAMES = (TRANSFORMERS_WEIGHTS, DIFFUSERS_WEIGHTS)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def read_folder(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and the weights in a folder.

    Raises:
        ValueError: a file is missing, damaged or a pickle; says which.
    """
    return read_json(path / CONFIG), read_weights(path)


def read_weights(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of one file, or of those that an index names.

    Args:
        folder: where they are.
        prefix: of the names to read, which is taken off; the others are not read.

    Raises:
        ValueError: there are none, or they are damaged or a pickle.
    """
    for name in _NAMES:
        if (folder / name).is_file():
            return _tensors(folder / name, prefix)
    index = next((folder / f"{name}.index.json" for name in _NAMES if (folder / f"{name}.index.json").is_file()), None)
    if index is None:
        pickles = sorted(file.name for file in folder.iterdir() if file.suffix in _PICKLES)
        if pickles:
            raise ValueError(
                f"{folder / pickles[0]} is a pickle, which could run anything when it is read, and is not. "
                f"Save the model as {TRANSFORMERS_WEIGHTS} where you trust it: model.save_pretrained(FOLDER)."
            )
        raise ValueError(f"there is no {TRANSFORMERS_WEIGHTS} in {folder}.")
    return _of_index(index, prefix)


def _of_index(index: Path, prefix: str) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{index} has no weight_map of file names.")
    places = {key: name for key, name in places.items() if key.startswith(prefix)}
    state: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ValueError(f"{index} names '{name}', which is no safetensors file in its folder.")
        state |= _tensors(index.parent / name, prefix)
    if lost := sorted({key.removeprefix(prefix) for key in places} - state.keys()):
        raise ValueError(f"{index} promises '{prefix}{lost[0]}', which is in none of its files.")
    return state


def _tensors(path: Path, prefix: str) -> dict[str, Tensor]:
    try:
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118, the file is no mapping
            return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    except FileNotFoundError as error:
        raise ValueError(f"there is no {path}.") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no safetensors file ({error}).") from error


def mapping(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a configuration.

    Raises:
        ValueError: there is none.
    """
    part = tree.get(name)
    if not isinstance(part, Mapping):
        raise ValueError(f"The configuration has no mapping '{name}', but {part!r}.")
    return part
