"""An encoder of texts as bytes and its decoder: strided convolutions with masks, and logits of each byte's values.

Convolutions over characters: Zhang, Zhao and LeCun 2015 (arXiv 1509.01626); residual ones over bytes that give a text
back: Zhang and LeCun 2018, "Byte-Level Recursive Convolutional Auto-Encoder" (arXiv 1802.01817). The blocks are those
of ConvNeXt (Liu et al. 2022, arXiv 2201.03545) with one axis. There is no attention: what a position holds is a matter
of the bytes around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.networks.base import EncoderConfig, Networks, Reach, register_network


@dataclass(frozen=True)
class Bytes1dConfig(EncoderConfig):
    channels: int = 32
    """Width at the rate of bytes; it grows by each stride, as the bytes of a position do."""
    strides: tuple[int, ...] = (2, 2)
    """Strides of the encoder, from bytes down; their product is the bytes of a position."""
    blocks: int = 1
    """Residual blocks at each rate, on either side."""
    kernel: int = 7
    """Kernel of the blocks, odd: what lies around."""
    expand: int = 2
    """How many times wider a block is inside."""

    def __post_init__(self) -> None:
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides must be one or more positive numbers, got {self.strides}.")
        for name in ("channels", "blocks", "expand"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and positive, got {self.kernel}.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each rate, from bytes down: a position that stands for more bytes is as much wider."""
        return tuple(self.channels * prod(self.strides[:rate]) for rate in range(len(self.strides) + 1))


class Block(nn.Module):
    """x (B, C, n) plus what its neighbours say: depthwise over positions, then each position by itself.

    Padding is brought to zero before every convolution, so that an item sees what it would see alone.
    """

    def __init__(self, channels: int, kernel: int, expand: int) -> None:
        super().__init__()
        self.around = nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, expand * channels)
        self.narrow = nn.Linear(expand * channels, channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        y = self.norm(self.around(_kept(x, mask)).transpose(1, 2))
        return x + self.narrow(F.gelu(self.widen(y))).transpose(1, 2)


def _kept(x: Tensor, mask: Tensor | None) -> Tensor:
    """x (B, C, n), zero where a mask (B, n) is False."""
    # `where`, not a product: what stands in padding may be NaN.
    return x if mask is None else x.where(mask[:, None], 0.0)


def _rates(config: Bytes1dConfig, widths: Sequence[int]) -> nn.ModuleList:
    """The blocks of each rate."""
    return nn.ModuleList(
        nn.ModuleList(Block(width, config.kernel, config.expand) for _ in range(config.blocks)) for width in widths
    )


def _masks(mask: Tensor | None, strides: Sequence[int]) -> list[Tensor | None]:
    """Masks (B, n) of every rate, the finest first, from that of positions (B, T)."""
    if mask is None:
        return [None] * (len(strides) + 1)
    found: list[Tensor | None] = [mask]
    finest = mask
    for stride in reversed(strides):
        finest = finest.repeat_interleave(stride, 1)
        found.insert(0, finest)
    return found


class Encoder(nn.Module):
    """Bytes (B, 1, S), S a multiple of the stride -> latents (B, dim, T)."""

    def __init__(self, config: Bytes1dConfig) -> None:
        super().__init__()
        self.strides, widths = config.strides, config.widths
        # One more value than a byte has: what fills the last position of a text, so that its end is seen.
        self.embed = nn.Embedding(config.in_channels + 1, widths[0])
        self.blocks = _rates(config, widths)
        self.down = nn.ModuleList(
            nn.Conv1d(*pair, stride, stride=stride) for pair, stride in zip(pairwise(widths), self.strides, strict=True)
        )
        self.out = nn.Conv1d(widths[-1], config.dim, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, T) is True where there is a position; None where all are."""
        masks = _masks(mask, self.strides)
        h = self.embed(x[:, 0].long()).transpose(1, 2)
        for rate, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, masks[rate])
            if rate < len(self.down):
                h = self.down[rate](_kept(h, masks[rate]))
        return self.out(h)


class Decoder(nn.Module):
    """Latents (B, dim, T) -> logits (B, 256, S)."""

    def __init__(self, config: Bytes1dConfig) -> None:
        super().__init__()
        self.strides, widths = config.strides, config.widths[::-1]
        self.embed = nn.Conv1d(config.dim, widths[0], 1)
        self.blocks = _rates(config, widths)
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(*pair, stride, stride=stride)
            for pair, stride in zip(pairwise(widths), reversed(self.strides), strict=True)
        )
        self.norm = nn.LayerNorm(widths[-1])
        self.out = nn.Conv1d(widths[-1], config.in_channels, 1)

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` as of the encoder."""
        masks = _masks(mask, self.strides)[::-1]
        h = self.embed(_kept(z, masks[0]))
        for rate, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                h = block(h, masks[rate])
            if rate < len(self.up):
                h = self.up[rate](_kept(h, masks[rate]))
        return self.out(self.norm(h.transpose(1, 2)).transpose(1, 2))


@register_network("bytes1d", Bytes1dConfig)
class Bytes1d(Networks):
    """The encoder and decoder of one config. Both take the mask of positions beside what they encode or decode.

    Attributes:
        filler: the value that fills the last position of a text, one above those of bytes.
    """

    def __init__(self, config: Bytes1dConfig) -> None:
        super().__init__()
        config.require_dims()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.downsample = prod(config.strides)
        self.filler = config.in_channels

    @property
    def last_layer(self) -> Tensor:
        out = self.decoder.out
        assert isinstance(out, nn.Conv1d)
        return out.weight

    @property
    def reach(self) -> Reach:
        # Up and down lie edge to edge, so that blocks alone look around; in bytes, those of a slower rate further.
        config, each, rate = self.config, self.config.blocks * (self.config.kernel // 2), 1
        bytes_around = each
        for stride in config.strides:
            rate *= stride
            bytes_around += each * rate
        around = -(-bytes_around // self.downsample)
        return Reach((bytes_around, bytes_around), (around, around))
