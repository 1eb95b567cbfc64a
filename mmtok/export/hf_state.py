"""What the maps between states of mmtok and of transformers share: modules by name, convolutions in either form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mmtok.networks.seanet import SEANetConfig
from mmtok.networks.weight_norm import as_pair, as_plain
from mmtok.tokenizers.base import Tokenizer

Blocks = dict[str, dict[str, Any]]
"""`tokenizer` and `quantizer` of a recipe."""
Names = Iterable[tuple[str, str]]
"""Pairs of module names: where a module is in one model and in the other."""


class Files(NamedTuple):
    """What lies beside the weights of a model."""

    config: dict[str, Any]
    """`config.json`"""
    preprocessor: dict[str, Any] | None = None
    """`preprocessor_config.json`; None where the library reads none."""


def renamed(state: Mapping[str, Tensor], names: Names, normed: bool) -> dict[str, Tensor]:
    """The tensors of some modules under other names.

    Args:
        state: of the one model.
        names: of its modules, and what they are called in the other.
        normed: whether the other keeps convolutions as pairs (g, v); however they are kept here, the weights are equal.

    Raises:
        ValueError: a module is not in the state.
    """
    out: dict[str, Tensor] = {}
    for source, target in names:
        own = module(state, source)
        out |= {f"{target}.{name}": value for name, value in (as_pair(own) if normed else as_plain(own)).items()}
    return out


def module(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one module, by their names in it.

    Raises:
        ValueError: the state has none.
    """
    own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
    if not own:
        raise ValueError(f"The weights have no '{name}': they are of another architecture than the configuration.")
    return own


def seanet_of(tokenizer: Tokenizer) -> SEANetConfig:
    """The configuration of the networks of a codec."""
    config = tokenizer.networks.config
    assert isinstance(config, SEANetConfig)
    return config


def flipped(names: Names) -> Names:
    """The same pairs in the other direction."""
    return [(theirs, ours) for ours, theirs in names]


def under(prefix: str, names: Names) -> Names:
    """Names of modules that lie in the same part of both models; ours are in `networks`."""
    return [(f"networks.{prefix}.{ours}", f"{prefix}.{theirs}") for ours, theirs in names]
