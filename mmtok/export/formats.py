"""Models of transformers that are tokenizers here, by the `model_type` of their `config.json`: in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from mmtok.export import hf_dac, hf_encodec
from mmtok.export.hf_state import Blocks, Files
from mmtok.networks.base import networks
from mmtok.networks.seanet import SEANetConfig
from mmtok.quantizers.base import quantizers
from mmtok.quantizers.residual import RQConfig
from mmtok.schema import ConfigError, suggest, to_plain
from mmtok.tokenizers.audio import AudioTokenizer, AudioTokenizerConfig
from mmtok.tokenizers.base import Tokenizer, build_tokenizer, tokenizers


class Maps(Protocol):
    """What a module of this package offers for one class of models."""

    MODEL: str
    """Name of the class."""

    def config_of(self, config: Mapping[str, Any]) -> Blocks:
        """A `config.json` -> the blocks of the same tokenizer; names the field that has no place in them."""

    def config_to_hf(self, tokenizer: AudioTokenizerConfig, encoder: SEANetConfig, quantizer: RQConfig) -> Files:
        """The nearest `config.json` and `preprocessor_config.json`; `to_native` looks whether they say the same."""

    def state_from_hf(self, state: Mapping[str, Tensor], encoder: SEANetConfig, depth: int) -> dict[str, Tensor]:
        """Weights of the model -> of the tokenizer."""

    def state_to_hf(self, state: Mapping[str, Tensor], encoder: SEANetConfig, depth: int) -> dict[str, Tensor]:
        """Weights of the tokenizer -> of the model."""


FORMATS: dict[str, Maps] = {"dac": hf_dac, "encodec": hf_encodec}
"""`model_type` -> how its models are read and written. Add one here, and `mmtok.load` and the verbs know it."""

_OF_TRAINING = {"probe", "usage"}
"""Tensors of a quantizer that models of other libraries may lack."""
_FREE = {
    *(f"quantizer.{name}" for name in ("commitment_weight", "codebook_weight", "ema_decay", "learn", "init")),
    *(f"quantizer.{name}" for name in ("restart", "dropout", "residual_grad")),
    *(f"tokenizer.encoder.{name}" for name in ("norm", "attention_heads", "attention_window")),
}
"""Fields that change how a tokenizer is trained or kept, not what it gives (attention has no place: `core`)."""


def from_native(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Tokenizer:
    """The tokenizer that a model of another library is.

    Args:
        config: its `config.json`.
        state: its weights.

    Raises:
        ValueError: the model is of a kind that is not known, or cannot be expressed; or the weights do not fit.
    """
    kind = config.get("model_type")
    if kind not in FORMATS:
        raise ValueError(f"model_type={kind!r} is no tokenizer known here.{suggest(str(kind), FORMATS)}")
    try:
        blocks = FORMATS[kind].config_of(config)
        # Seeded: what the model lacks is part of the fingerprint that codes carry, and must be the same every time.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tokenizer = build_tokenizer(**blocks)
    except ConfigError:
        raise
    except (TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"the config.json of this {kind} makes no sense: {error}.") from error
    assert isinstance(tokenizer.networks.config, SEANetConfig)
    _fill(tokenizer, FORMATS[kind].state_from_hf(state, tokenizer.networks.config, tokenizer.quantizer.depth))
    return tokenizer


def _fill(tokenizer: Tokenizer, state: Mapping[str, Tensor]) -> None:
    own = tokenizer.state_dict()
    lacking = [name for name in own if name not in state and name.split(".")[-1] not in _OF_TRAINING]
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    for name in [*lacking, *wrong][:1]:
        here, there = (list(of[name].shape) if name in of else "none" for of in (own, state))
        raise ValueError(f"The weights do not fit the config.json: {name} is {there}, and should be {here}.")
    tokenizer.load_state_dict(state, strict=False)


def to_native(tokenizer: Tokenizer, kind: str) -> tuple[Files, dict[str, Tensor]]:
    """What another library needs to load a tokenizer as its own class: configurations and weights.

    Raises:
        ValueError: the class cannot express the tokenizer; names the fields.
    """
    maps = FORMATS[kind]
    if not isinstance(tokenizer, AudioTokenizer):
        raise ValueError(f"{maps.MODEL} is for sounds, and this tokenizer is of '{tokenizer.spec.modality}'.")
    encoder, quantizer = tokenizer.config.encoder, tokenizer.quantizer.config
    if not isinstance(encoder, SEANetConfig) or not isinstance(quantizer, RQConfig):
        names = f"encoder.name={networks.name_of(encoder)}, quantizer.name={quantizers.name_of(quantizer)}"
        raise ValueError(f"{maps.MODEL} cannot express {names}; only seanet with rq can be.")
    files = maps.config_to_hf(tokenizer.config, encoder, quantizer)
    want = maps.config_of(files.config)
    parsed = tokenizers.parse(want["tokenizer"], "tokenizer")
    assert isinstance(parsed, AudioTokenizerConfig)
    there = _function(parsed, quantizers.parse(want["quantizer"], "quantizer", dim=parsed.dim))
    here = _function(tokenizer.config, quantizer)
    if differing := [f"{key}={here[key]!r} (only {there[key]!r})" for key in here if here[key] != there[key]]:
        raise ValueError(f"{maps.MODEL} cannot express {', '.join(differing)}.")
    state = maps.state_to_hf(tokenizer.state_dict(), encoder, tokenizer.quantizer.depth)
    return files, {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}


def _function(tokenizer: AudioTokenizerConfig, quantizer: Any) -> dict[str, Any]:
    """Fields {dotted key: value} that say what a tokenizer computes, each in one way of writing it."""
    encoder = tokenizer.encoder
    assert isinstance(encoder, SEANetConfig)
    # What is lost at odd strides is all that `dac` does differently.
    padding = encoder.transpose_padding if any(stride % 2 for stride in encoder.strides) else "exact"
    encoder = replace(encoder, decoder_channels=encoder.width, transpose_padding=padding)
    quantizer = replace(quantizer, code_dim=quantizer.code_dim or quantizer.dim)
    flat: dict[str, Any] = {}
    parts = {"tokenizer": replace(tokenizer, encoder=encoder), "quantizer": quantizer}
    for path, part in parts.items():
        _flatten(to_plain(part), path, flat)
    return {key: value for key, value in flat.items() if key not in _FREE}


def _flatten(tree: Mapping[str, Any], path: str, into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{path}.{key}", into)
        else:
            into[f"{path}.{key}"] = value
