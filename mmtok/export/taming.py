"""VQModel of taming-transformers, and of latent-diffusion after it: read, not written.

Esser et al. 2021 (arXiv 2012.09841). A model is a recipe in YAML, whose `model` block names a class and its parameters,
and a checkpoint of PyTorch Lightning, which is a pickle and read as `unpickle.py` does. Networks are named as here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmtok.export.hf_state import Blocks
from mmtok.export.pictures import from_model
from mmtok.export.reading import mapping
from mmtok.export.unpickle import read_checkpoint
from mmtok.tokenizers.base import Tokenizer

MODEL = "taming VQModel"

_CLASSES = ("VQModel", "VQModelInterface")
_UNKNOWN = {
    "GumbelVQ": "It chooses codes by logits, not by their distance.",
    "EMAVQ": "Its checkpoints have other names.",
    "AutoencoderKL": "It has no codes.",
}
"""Classes of the same files that cannot be expressed, and why."""
_REQUIRED = {
    "double_z": False,
    "resamp_with_conv": True,
    "use_linear_attn": False,
    "attn_type": "vanilla",
    "give_pre_end": False,
    "tanh_out": False,
}
"""Fields of ddconfig, with their defaults, for which there is one value here."""
_PLACES = ("", "configs", "ckpts", "checkpoints")
"""Folders of a run, in taming's own layout and in that of its downloads."""
_BESIDE = ("loss.", "model_ema.", "colorize")
"""Beginnings of names in a checkpoint that are of training."""


def knows(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of the class."""
    model = config.get("model")
    return isinstance(model, Mapping) and "target" in model


def read(path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The recipe and the weights of a run's folder, or of a checkpoint with its recipe beside it.

    Raises:
        ValueError: there is none, or more than one; or it is damaged.
    """
    folder = path if path.is_dir() else path.parent
    config = _recipe(folder, None if path.is_dir() else path.stem)
    checkpoint = read_checkpoint(_checkpoint(folder) if path.is_dir() else path)
    content = checkpoint.content
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise ValueError(f"{checkpoint.path} has no state_dict: it is no checkpoint of PyTorch Lightning.")
    return config, checkpoint.tensors(state, _BESIDE)


def _files(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(file for place in _PLACES for file in (folder / place).glob("*") if file.suffix in suffixes)


def _recipe(folder: Path, stem: str | None) -> Mapping[str, Any]:
    """The one recipe of a folder that has a model (Lightning's own has none), or that is named as the checkpoint."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ValueError("recipes of taming are YAML. Install mmtok[train], or pyyaml.") from error
    found = {}
    for file in _files(folder, ".yaml", ".yml"):
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{file} is no valid YAML: {error}.") from error
        if isinstance(content, Mapping) and knows(content):
            found[file] = content
    if len(found) > 1 and stem is not None:
        found = {file: content for file, content in found.items() if file.stem == stem} or found
    return found[_single(list(found), folder, "YAML file with a model.target")]


def _checkpoint(folder: Path) -> Path:
    files = _files(folder, ".ckpt", ".pt", ".pth")
    return next((file for file in files if file.name == "last.ckpt"), None) or _single(files, folder, "checkpoint")


def _single(files: list[Path], folder: Path, what: str) -> Path:
    if not files:
        raise ValueError(f"there is no {what} in {folder}, nor in its {', '.join(_PLACES[1:])}.")
    if len(files) > 1:
        raise ValueError(f"{folder} has more than one {what}: {', '.join(map(str, files))}. Leave one of them.")
    return files[0]


def config_of(config: Mapping[str, Any]) -> Blocks:
    """The blocks `tokenizer` and `quantizer` of our recipe that is the model of theirs.

    Raises:
        ValueError: the model does what no configuration of `conv2d` and `vq` does; names the field.
    """
    model = mapping(config, "model")
    name = str(model["target"]).rpartition(".")[2]
    if name not in _CLASSES:
        raise ValueError(f"model.target={model['target']} cannot be expressed; only {' and '.join(_CLASSES)} can. "
                         f"{_UNKNOWN.get(name, '')}".rstrip())  # fmt: skip
    params = mapping(model, "params")
    network = mapping(params, "ddconfig")
    for field, want in _REQUIRED.items():
        if network.get(field, want) != want:
            raise ValueError(f"ddconfig.{field}={network[field]!r} cannot be expressed; only {want!r} can.")
    if params.get("remap") is not None:
        raise ValueError(f"params.remap={params['remap']!r} cannot be expressed: its ids are not those of the codes.")
    channels, size, blocks = network["in_channels"], network["resolution"], network["num_res_blocks"]
    if network["out_ch"] != channels:
        raise ValueError(f"ddconfig.out_ch={network['out_ch']} cannot be expressed; only in_channels={channels} can.")
    multipliers = tuple(network["ch_mult"])
    factors = [2**level for level in range(len(multipliers))]
    encoder = {
        "name": "conv2d",
        "channels": network["ch"],
        "multipliers": multipliers,
        "blocks": blocks,
        "decoder_blocks": blocks + 1,
        "attention": tuple(factor for factor in factors if size // factor in network["attn_resolutions"]),
        "mid_attention": True,
        "dropout": float(network.get("dropout", 0.0)),
        "z_channels": network["z_channels"],
    }
    return {
        "tokenizer": {
            "name": "image",
            "image_size": size,
            "channels": channels,
            "dim": params["embed_dim"],
            "encoder": encoder,
        },
        # As its loss has them, where the two weights are exchanged (`legacy`).
        "quantizer": {
            "name": "vq",
            "codebook_size": params["n_embed"],
            "learn": "gradient",
            "commitment_weight": 1.0,
            "codebook_weight": 0.25,
        },
    }


def state_from(state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
    """State of the model -> of the tokenizer."""
    return from_model(state, tokenizer, lambda name: name)
