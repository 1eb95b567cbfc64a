"""Weight normalisation taken out of networks and states, and put in again: for use, for export, for others' weights.

A normed weight is g * v / ||v||, with a norm for each index of its first axis; PyTorch keeps g and v as `original0` and
`original1` of a parametrization. `nn.utils.remove_weight_norm` knows nothing of those (audio.md trap 31).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

Module = TypeVar("Module", bound=nn.Module)

LENGTH, DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"
"""How PyTorch names g and v of a convolution."""
_PAIRS = ((LENGTH, DIRECTION), ("weight_g", "weight_v"))
"""How a normed weight is kept: by today's PyTorch, and in older checkpoints."""


def fold_weight_norm(module: Module) -> Module:
    """A copy with plain weights in place of normed ones: the same function without the work of norming them."""
    folded = deepcopy(module)
    for part in folded.modules():
        if is_parametrized(part, "weight"):
            assert isinstance(part.weight, Tensor)
            weight = part.weight.detach().clone()
            # Not `remove_parametrizations`: it takes `weight` off the class, which a copy shares with its original.
            del part.parametrizations
            part.__class__ = type(part).__mro__[1]
            part.weight = nn.Parameter(weight)
    return folded


def fold_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state with plain weights in place of pairs (g, v); what is no pair stays."""
    folded: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(LENGTH):
            folded[name.removesuffix(LENGTH) + "weight"] = merge(value, state[name.removesuffix(LENGTH) + DIRECTION])
        elif not name.endswith(DIRECTION):
            folded[name] = value
    return folded


def merge(length: Tensor, direction: Tensor) -> Tensor:
    """The weight of a pair (g, v)."""
    return torch._weight_norm(direction, length, 0)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A pair (g, v) whose weight is the given one."""
    return torch.norm_except_dim(weight, 2, 0), weight


def as_plain(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of one module with its weight as one, where it is a pair."""
    for length, direction in _PAIRS:
        if length in own:
            rest = {name: value for name, value in own.items() if name not in (length, direction)}
            return rest | {"weight": merge(own[length], own[direction])}
    return dict(own)


def as_pair(own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of one module with its weight as a pair, named as PyTorch does today."""
    for length, direction in _PAIRS:
        if length in own:
            rest = {name: value for name, value in own.items() if name not in (length, direction)}
            return rest | {LENGTH: own[length], DIRECTION: own[direction]}
    if "weight" not in own:
        return dict(own)
    pair = dict(zip((LENGTH, DIRECTION), split(own["weight"]), strict=True))
    return {name: value for name, value in own.items() if name != "weight"} | pair
