"""What the maps of VQGANs share: layers by other names, the 1x1 layers around the codes, codes of length 1.

A tokenizer here may have such layers in its network (`z_channels`), in its quantizer (`code_dim`), in both or in none;
other classes have one pair of them, quant_conv and post_quant_conv. Two in a row are multiplied into one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.export.kinds import VQGAN, Configs, groups_of
from mmtok.networks.conv2d import Conv2dConfig
from mmtok.quantizers.vq import VQ
from mmtok.tokenizers.base import Tokenizer

Place = Callable[[str], str]
"""Our name of a tensor of the networks, without "networks." -> its name in the model."""

_UNIT = 1e-5
"""By how much the length of a code may miss 1, and distances still choose as directions do."""
_OWN = ("networks.encoder.quant_conv.", "networks.decoder.post_quant_conv.")


def encoder_of(tokenizer: Tokenizer) -> Conv2dConfig:
    """The configuration of the networks of a VQGAN."""
    config = tokenizer.networks.config
    assert isinstance(config, Conv2dConfig)
    return config


def single_groups(configs: Configs, model: str) -> int:
    """Groups of all norms of the networks.

    Raises:
        ValueError: they differ, and the model has one number for all.
    """
    encoder = VQGAN.parts(configs, model)[1]
    found = groups_of(encoder)
    if len(found) > 1:
        raise ValueError(
            f"{model} cannot express encoder.groups={encoder.groups} with channels={encoder.channels}, which make "
            f"norms of {' and '.join(map(str, found))} groups; only one number for all."
        )
    return found[0]


def from_model(state: Mapping[str, Tensor], tokenizer: Tokenizer, place: Place) -> dict[str, Tensor]:
    """Weights of a model with quant_conv, quantize.embedding and post_quant_conv -> of the tokenizer.

    Raises:
        ValueError: a layer is missing, or one has no place.
    """
    own, out, left = tokenizer.state_dict(), {}, dict(state)

    def take(name: str) -> Tensor:
        if name not in left:
            raise ValueError(f"The weights have no '{name}': they are of another architecture than the configuration.")
        return left.pop(name).float()

    for name, value in own.items():
        if name.startswith("networks.") and not name.startswith(_OWN):
            given = take(place(name.removeprefix("networks.")))
            # Attention is linear there, and convolutions of 1 here.
            out[name] = given[..., None, None] if value.dim() == 4 and given.dim() == 2 else given
    for ours in _OWN:
        for part in ("weight", "bias"):
            out[ours + part] = take(f"{ours.split('.')[2]}.{part}")
    out["quantizer.codebook"] = take("quantize.embedding.weight")
    out["quantizer.updates"] = torch.ones((), dtype=torch.int64)  # so that no k-means begins
    if left:
        raise ValueError(f"The weights have '{sorted(left)[0]}', for which the configuration has no place.")
    return out


def to_model(state: Mapping[str, Tensor], tokenizer: Tokenizer, place: Place) -> dict[str, Tensor]:
    """Weights of the tokenizer -> of a model; layers of attention come as convolutions."""
    out = {
        place(name.removeprefix("networks.")): value
        for name, value in state.items()
        if name.startswith("networks.") and not name.startswith(_OWN)
    }
    config = encoder_of(tokenizer)
    inner = (
        _Linear.of(state, "networks.encoder.quant_conv", config.dim),
        _Linear.of(state, "networks.decoder.post_quant_conv", config.dim),
    )
    outer = (
        _Linear.of(state, "quantizer.project_in", config.dim),
        _Linear.of(state, "quantizer.project_out", config.dim),
    )
    for name, layer in (("quant_conv", inner[0].then(outer[0])), ("post_quant_conv", outer[1].then(inner[1]))):
        out[f"{name}.weight"], out[f"{name}.bias"] = layer.weight.float()[..., None, None], layer.bias.float()
    out["quantize.embedding.weight"] = codes_of(tokenizer)
    return out


def codes_of(tokenizer: Tokenizer) -> Tensor:
    """The codes (K, D) of a VQGAN as it uses them."""
    assert isinstance(tokenizer.quantizer, VQ)
    return tokenizer.quantizer.code_table()


def require_unit(codes: Tensor, why: str) -> None:
    """Refuse codes (K, D) of other lengths than 1.

    Args:
        codes: of a tokenizer or a model.
        why: what it would lead to, and what to do.

    Raises:
        ValueError: says the lengths.
    """
    lengths = codes.float().norm(dim=1)
    if not ((lengths - 1).abs() < _UNIT).all():
        shortest, longest = (f"{length.item():.4g}" for length in lengths.aminmax())
        raise ValueError(f"The codes have lengths from {shortest} to {longest}. {why}")


class _Linear(NamedTuple):
    """x -> weight x + bias, in double precision, so that the product of two is rounded once."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, state: Mapping[str, Tensor], name: str, dim: int) -> _Linear:
        """A layer by its name; where there is none, the identity of `dim` channels."""
        if f"{name}.weight" not in state:
            return cls(torch.eye(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64))
        return cls(state[f"{name}.weight"].cpu().double().flatten(1), state[f"{name}.bias"].cpu().double())

    def then(self, other: _Linear) -> _Linear:
        return _Linear(other.weight @ self.weight, other.weight @ self.bias + other.bias)
