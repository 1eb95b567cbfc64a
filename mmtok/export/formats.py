"""Models of other libraries that are tokenizers here, by the names the verbs have for them: read, and most written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mmtok.export import diffusers_vq, hf_dac, hf_encodec, hf_janus, hf_mimi, taming
from mmtok.export.hf_state import Blocks, Files
from mmtok.export.kinds import Configs, Kind
from mmtok.quantizers.base import quantizers
from mmtok.schema import ConfigError, suggest
from mmtok.tokenizers.base import Tokenizer, build_tokenizer, tokenizers


class Format(Protocol):
    """What a module of this package offers for one class of models."""

    MODEL: str
    """Name of the class."""

    def knows(self, config: Mapping[str, Any]) -> bool:
        """Whether a `config.json` is of the class."""

    def read(self, path: Path) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
        """The configuration and the weights in a folder."""

    def config_of(self, config: Mapping[str, Any]) -> Blocks:
        """A configuration of the class -> the blocks of the same tokenizer; names a field that has no place in them."""

    def state_from(self, state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
        """Weights of the model -> of the tokenizer, which was built of `config_of`."""


@runtime_checkable
class Written(Format, Protocol):
    """What it offers besides where tokenizers are written as the class."""

    LIBRARY: str
    """Package the class is imported from."""
    WEIGHTS: str
    """File name of its weights."""
    KIND: Kind[Any, Any, Any]
    """Of which kind it is."""

    def files_of(self, configs: Configs) -> Files:
        """The nearest configurations; `to_native` looks whether they say the same."""

    def state_to(self, state: Mapping[str, Tensor], tokenizer: Tokenizer) -> dict[str, Tensor]:
        """Weights of the tokenizer -> of the model."""


FORMATS: dict[str, Format] = {
    "hf-dac": hf_dac,
    "hf-encodec": hf_encodec,
    "hf-mimi": hf_mimi,
    "hf-janus-vq": hf_janus,
    "diffusers-vq": diffusers_vq,
    "taming": taming,
}
"""Names in the verbs -> how models are read and written. Add one here, and `mmtok.load` and the verbs know it."""
WRITTEN: dict[str, Written] = {name: format for name, format in FORMATS.items() if isinstance(format, Written)}
"""Those of `mmtok export --as`."""

_OF_TRAINING = {"probe", "usage"}
"""Tensors of a quantizer that models of other libraries may lack."""


def format_of(config: Mapping[str, Any]) -> str:
    """The name in `FORMATS` of the class a `config.json` is of.

    Raises:
        ValueError: of none that is known.
    """
    for name, form in FORMATS.items():
        if form.knows(config):
            return name
    said = next((key for key in ("_class_name", "model_type") if key in config), "model_type")
    kind = str(config.get(said))
    raise ValueError(f"{said}={kind!r} is no tokenizer known here.{suggest(f'hf-{kind}', FORMATS)}")


def from_native(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Tokenizer:
    """The tokenizer that a model of another library is.

    Args:
        name: a key of `FORMATS`.
        config: its configuration.
        state: its weights.

    Raises:
        ValueError: the model cannot be expressed, or the weights do not fit.
    """
    form = FORMATS[name]
    if not form.knows(config):
        said = config.get("_class_name", config.get("model_type"))
        raise ValueError(f"this is no {form.MODEL}, but {said!r}. Leave {name} out, or name what it is.")
    try:
        blocks = form.config_of(config)
        # Seeded: what the model lacks is part of the fingerprint that codes carry, and must be the same every time.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tokenizer = build_tokenizer(**blocks)
    except ConfigError:
        raise
    except (TypeError, AttributeError, KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the configuration of this {form.MODEL} makes no sense: {error}.") from error
    _fill(tokenizer, form.state_from(state, tokenizer))
    return tokenizer


def _fill(tokenizer: Tokenizer, state: Mapping[str, Tensor]) -> None:
    own = tokenizer.state_dict()
    lacking = [name for name in own if name not in state and name.split(".")[-1] not in _OF_TRAINING]
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    for name in [*lacking, *wrong][:1]:
        here, there = (list(of[name].shape) if name in of else "none" for of in (own, state))
        raise ValueError(f"The weights do not fit the configuration: {name} is {there}, and should be {here}.")
    tokenizer.load_state_dict(state, strict=False)


def to_native(tokenizer: Tokenizer, name: str) -> tuple[Files, dict[str, Tensor]]:
    """What another library needs to load a tokenizer as its own class: configurations and weights.

    Raises:
        ValueError: the class cannot express the tokenizer; names the fields.
    """
    form = WRITTEN[name]
    configs = Configs(tokenizer.config, tokenizer.quantizer.config)
    files = form.files_of(configs)
    blocks = form.config_of(files.config)
    parsed = tokenizers.parse(blocks["tokenizer"], "tokenizer")
    there = form.KIND.function(
        Configs(parsed, quantizers.parse(blocks["quantizer"], "quantizer", dim=parsed.dim)), form.MODEL
    )
    here = form.KIND.function(configs, form.MODEL)
    if differing := [f"{key}={here[key]!r} (only {there[key]!r})" for key in here if here[key] != there[key]]:
        raise ValueError(f"{form.MODEL} cannot express {', '.join(differing)}.")
    state = form.state_to(tokenizer.state_dict(), tokenizer)
    return files, {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
