"""Encoders and decoders: signals to latents and back. A decoder comes with its encoder, built from one config."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmtok.registry import Registry


@dataclass(frozen=True)
class EncoderConfig:
    """Fields every pair of networks has. Both are filled in by the tokenizer."""

    in_channels: int
    """Channels of the signal (3 for colour pictures)."""
    dim: int
    """Channels of the latents."""


class Networks(nn.Module):
    """An encoder and its decoder, built from one config.

    Attributes:
        encoder: signal (B, C, ...) -> latents (B, dim, ...), each axis shorter by `downsample`.
        decoder: latents (B, dim, ...) -> signal (B, C, ...).
        downsample: samples or pixels a side behind one position.
    """

    encoder: nn.Module
    decoder: nn.Module
    downsample: int

    @property
    def last_layer(self) -> Tensor:
        """Weight of the decoder's last layer, for adaptive loss weights."""
        raise NotImplementedError


networks: Registry[EncoderConfig, Networks] = Registry("network", EncoderConfig)
register_network = networks.register
