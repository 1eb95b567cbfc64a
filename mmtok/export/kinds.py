"""The two kinds of tokenizers that other libraries have too: codecs of sounds and VQGANs of pictures.

A kind says of which classes a tokenizer must be, and what it computes, in one way of writing it: two configurations
that differ there are two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

from mmtok.networks.base import EncoderConfig, networks
from mmtok.networks.blocks2d import group_count
from mmtok.networks.conv2d import Conv2dConfig
from mmtok.networks.seanet import SEANetConfig
from mmtok.quantizers.base import QuantizerConfig, quantizers
from mmtok.quantizers.residual import RQConfig
from mmtok.quantizers.vq import VQConfig
from mmtok.schema import to_plain
from mmtok.tokenizers.audio import AudioTokenizerConfig
from mmtok.tokenizers.base import TokenizerConfig, tokenizers
from mmtok.tokenizers.image import ImageTokenizerConfig

T = TypeVar("T", bound=TokenizerConfig)
E = TypeVar("E", bound=EncoderConfig)
Q = TypeVar("Q", bound=QuantizerConfig)


class Configs(NamedTuple):
    """The two blocks of a recipe that make a tokenizer."""

    tokenizer: TokenizerConfig
    quantizer: QuantizerConfig


@dataclass(frozen=True)
class Kind(Generic[T, E, Q]):
    """Tokenizers of one class, network and quantizer."""

    signals: str
    """What they are for, in messages."""
    tokenizer: type[T]
    encoder: type[E]
    quantizer: type[Q]
    plain: Callable[[T, E, Q], tuple[E, Q]]
    """One way of writing what can be written in several."""
    free: frozenset[str]
    """Fields that change how a tokenizer is trained or kept, not what it gives."""

    def parts(self, configs: Configs, model: str) -> tuple[T, E, Q]:
        """The three configurations by their classes.

        Raises:
            ValueError: they are of others; names them, and the `model` that has no such.
        """
        tokenizer, quantizer = configs
        encoder = getattr(tokenizer, "encoder", None)
        if not isinstance(tokenizer, self.tokenizer):
            modality = tokenizers.name_of(tokenizer)
            raise ValueError(f"{model} is for {self.signals}, and this tokenizer is of '{modality}'.")
        if (
            not isinstance(encoder, self.encoder)
            or not isinstance(quantizer, self.quantizer)
            or not self._exact(configs)
        ):
            assert isinstance(encoder, EncoderConfig)
            names = f"encoder.name={networks.name_of(encoder)}, quantizer.name={quantizers.name_of(quantizer)}"
            raise ValueError(f"{model} cannot express {names}; only {self._names()} can be.")
        return tokenizer, encoder, quantizer

    def function(self, configs: Configs, model: str) -> dict[str, Any]:
        """Fields {dotted key: value} that say what a tokenizer computes."""
        tokenizer, encoder, quantizer = self.parts(configs, model)
        encoder, quantizer = self.plain(tokenizer, encoder, quantizer)
        flat: dict[str, Any] = {}
        _flatten(to_plain(tokenizer) | {"encoder": to_plain(encoder)}, "tokenizer", flat)
        _flatten(to_plain(quantizer), "quantizer", flat)
        return {key: value for key, value in flat.items() if key not in self.free}

    def _exact(self, configs: Configs) -> bool:
        """Whether no block is of a class that is derived from ours, as `rq` is from `vq`, and does more."""
        tokenizer, quantizer = configs
        return type(getattr(tokenizer, "encoder", None)) is self.encoder and type(quantizer) is self.quantizer

    def _names(self) -> str:
        def name(registry: Any, config: type) -> str:
            return next(name for name in registry.names() if registry.config_class(name) is config)

        return f"{name(networks, self.encoder)} with {name(quantizers, self.quantizer)}"


def _flatten(tree: Mapping[str, Any], path: str, into: dict[str, Any]) -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{path}.{key}", into)
        else:
            into[f"{path}.{key}"] = value


def _codec(
    tokenizer: AudioTokenizerConfig, encoder: SEANetConfig, quantizer: RQConfig
) -> tuple[SEANetConfig, RQConfig]:
    # What is lost at odd strides is all that `dac` does differently.
    padding = encoder.transpose_padding if any(stride % 2 for stride in encoder.strides) else "exact"
    encoder = replace(encoder, decoder_channels=encoder.width, transpose_padding=padding)
    return encoder, replace(quantizer, code_dim=quantizer.code_dim or quantizer.dim)


_TRAINING = (
    "commitment_weight", "codebook_weight", "ema_decay", "learn", "gradient", "init", "restart", "restart_policy",
    "entropy_weight", "entropy_temperature", "diversity",
)  # fmt: skip

CODEC = Kind(
    "sounds",
    AudioTokenizerConfig,
    SEANetConfig,
    RQConfig,
    _codec,
    frozenset(
        {
            *(f"quantizer.{name}" for name in (*_TRAINING, "dropout", "residual_grad", "train_beam")),
            # Attention has no place in the classes that are written: `core` says so.
            *(f"tokenizer.encoder.{name}" for name in ("norm", "attention_heads", "attention_window")),
            *(f"tokenizer.encoder.{name}" for name in ("core_bias", "core_scale")),
        }
    ),
)


def _vqgan(
    tokenizer: ImageTokenizerConfig, encoder: Conv2dConfig, quantizer: VQConfig
) -> tuple[Conv2dConfig, VQConfig]:
    # The layers of 1x1 in a row between network and codes are one: only how wide both ends are counts.
    latents, codes = encoder.z_channels or encoder.dim, quantizer.code_dim or quantizer.dim
    encoder = replace(
        encoder,
        z_channels=latents,
        groups=groups_of(encoder)[-1],
        decoder_blocks=encoder.blocks if encoder.decoder_blocks is None else encoder.decoder_blocks,
        attention=tuple(sorted(set(encoder.attention))),
    )
    return encoder, replace(quantizer, dim=codes, code_dim=codes)


def groups_of(encoder: Conv2dConfig) -> list[int]:
    """Groups of the norms of a network, each number once, the smallest first."""
    return sorted({group_count(width, encoder.groups) for width in (encoder.channels, *encoder.widths)})


VQGAN = Kind(
    "pictures",
    ImageTokenizerConfig,
    Conv2dConfig,
    VQConfig,
    _vqgan,
    frozenset(
        {
            "tokenizer.dim",
            "tokenizer.image_size",
            *(f"tokenizer.encoder.{name}" for name in ("dim", "dropout", "gradient_checkpointing", "channels_last")),
            # With rows of length 1 it chooses as plain distance does, and without them no format has it: `pictures`.
            *(f"quantizer.{name}" for name in (*_TRAINING, "l2")),
        }
    ),
)
