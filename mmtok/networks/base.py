"""Encoders and decoders: signals to latents and back. A decoder comes with its encoder, built from one config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from torch import Tensor, nn

from mmtok.registry import Registry


@dataclass(frozen=True)
class EncoderConfig:
    """Fields every pair of networks has. Both are filled in by the tokenizer, which knows them; 0 until then."""

    in_channels: int = 0
    """Channels of the signal (3 for colour pictures)."""
    dim: int = 0
    """Channels of the latents."""

    def filled(self, in_channels: int, dim: int) -> Self:
        """The config with the tokenizer's channels.

        Raises:
            ValueError: other channels were given already.
        """
        for name, value in (("in_channels", in_channels), ("dim", dim)):
            given = getattr(self, name)
            if given not in (0, value):
                raise ValueError(f"encoder.{name}={given} does not fit the tokenizer's {value}. Leave it out.")
        return replace(self, in_channels=in_channels, dim=dim)

    def require_dims(self) -> None:
        """Refuse to build a network before its channels are known.

        Raises:
            ValueError: `in_channels` or `dim` is not positive.
        """
        if min(self.in_channels, self.dim) < 1:
            raise ValueError(f"A network needs in_channels and dim, got {self.in_channels} and {self.dim}.")


class Reach(NamedTuple):
    """How far a pair of networks sees along each axis; a position is `downsample` pixels or samples."""

    encoder: tuple[int, int]
    """Pixels before and after those of a position that its latent depends on."""
    decoder: tuple[int, int]
    """Positions before and after a position that its pixels depend on."""
    beyond: tuple[str, ...] = ()
    """Kinds of layers that see the whole signal, however far the others see."""


class Networks(nn.Module):
    """An encoder and its decoder, built from one config.

    Attributes:
        encoder: signal (B, C, ...) -> latents (B, dim, ...), each axis shorter by `downsample`.
        decoder: latents (B, dim, ...) -> signal (B, C, ...).
        downsample: samples or pixels a side behind one position.
        causal: of networks for sound: whether no frame depends on samples after it.
        streams_exactly: whether, besides, nothing depends on padding, so that a stream gives each frame at once.
        latency: samples beyond its own `downsample` that a stream's first frame waits for.
    """

    encoder: nn.Module
    decoder: nn.Module
    downsample: int
    causal: bool = False
    streams_exactly: bool = False
    latency: int = 0

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last layer, for adaptive loss weights."""
        raise NotImplementedError

    @property
    def reach(self) -> Reach | None:
        """How far they see; None where that is not known. Big pictures are computed in tiles by it."""
        return None


networks: Registry[EncoderConfig, Networks] = Registry("network", EncoderConfig)
register_network = networks.register
