"""The convolutional encoder and decoder of VQGAN and its descendants: taming, LlamaGen and VQGAN+ are settings of it.

Esser et al. 2021 (arXiv 2012.09841); Sun et al. 2024, LlamaGen (arXiv 2406.06525); Weber et al. 2024, MaskBit
(arXiv 2409.16211). Parameters are named as in taming's code, so that published weights map one to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmtok.networks.base import EncoderConfig, Networks, Reach, register_network
from mmtok.networks.blocks2d import (
    AttentionBlock,
    Downsample,
    Norm,
    Resample,
    ResidualBlock,
    Shortcut,
    Upsample,
    normalisation,
)


@dataclass(frozen=True)
class Conv2dConfig(EncoderConfig):
    channels: int = 128
    """Width at full resolution."""
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width of each level, in units of `channels`. Between two levels the sides halve, so 5 levels are stride 16."""
    blocks: int = 2
    """Residual blocks of each level of the encoder."""
    decoder_blocks: int | None = None
    """Residual blocks of each level of the decoder; None means as many as the encoder. taming has one more."""
    attention: tuple[int, ...] = ()
    """Downsampling factors at which every block is followed by self-attention: 16 is taming's 16 px of 256."""
    mid_blocks: int = 2
    """Residual blocks between the lowest level and the latents, on either side; 0 for none."""
    mid_attention: bool = False
    """Self-attention after the first of the mid blocks."""
    patch: int = 1
    """Side of the squares folded into channels before the first convolution: cheap stride for small machines."""
    norm: Norm = "group"
    groups: int = 32
    """Groups of each norm; fewer where they do not divide the channels."""
    dropout: float = 0.0
    resample: Resample = "conv"
    """How the sides halve: a convolution of stride 2, or a mean over 2x2."""
    latent_kernel: int = 3
    """Side of the kernel of the encoder's last convolution."""
    z_channels: int | None = None
    """Channels between the network and a 1x1 convolution to `dim` and back (taming's quant_conv); None for none."""
    bias: bool = True
    """Whether residual blocks and the first convolution have biases."""
    shortcut: Shortcut = "input"
    """What the shortcut of a widening block starts from. VQGAN+ starts from the block's own result."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass: about a third more time for a fraction of the memory."""
    channels_last: bool = False
    """Lay weights, and so activations, out channels-last: faster on GPUs in bf16, and on CPUs where norm is none."""

    def __post_init__(self) -> None:
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one or more positive widths, got {self.multipliers}.")
        for name in ("channels", "blocks", "patch", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.decoder_blocks is not None and self.decoder_blocks < 1:
            raise ValueError(f"decoder_blocks must be at least 1, or null, got {self.decoder_blocks}.")
        if self.mid_attention and not self.mid_blocks:
            raise ValueError("mid_attention needs mid_blocks of at least 1, got 0.")
        if self.latent_kernel % 2 == 0:
            raise ValueError(f"latent_kernel must be odd, got {self.latent_kernel}.")
        unknown = sorted(set(self.attention) - set(self.factors))
        if unknown:
            raise ValueError(f"attention at factors {unknown}, but this network has the factors {list(self.factors)}.")

    @property
    def factors(self) -> tuple[int, ...]:
        """Downsampling factor of each level."""
        return tuple(self.patch * 2**level for level in range(len(self.multipliers)))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)


class Level(nn.Module):
    """The residual blocks of one resolution, each followed by attention where there is any."""

    def __init__(self, config: Conv2dConfig, channels: int, out_channels: int, blocks: int, attention: bool) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * blocks
        self.block = nn.ModuleList(_residual(config, a, b) for a, b in pairwise(widths))
        self.attn = nn.ModuleList(_attention(config, out_channels) for _ in range(blocks if attention else 0))
        self.checkpointed = config.gradient_checkpointing

    def forward(self, x: Tensor) -> Tensor:
        for index in range(len(self.block)):
            x = checkpoint(self._step, index, x, use_reentrant=False) if self._recompute(x) else self._step(index, x)
        return x

    def _step(self, index: int, x: Tensor) -> Tensor:
        x = self.block[index](x)
        return self.attn[index](x) if len(self.attn) else x

    def _recompute(self, x: Tensor) -> bool:
        return self.checkpointed and self.training and x.requires_grad


class DownLevel(Level):
    """A level of the encoder, which halves the sides unless it is the last."""

    def __init__(
        self,
        config: Conv2dConfig,
        channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        resample: Resample | None,
    ) -> None:
        super().__init__(config, channels, out_channels, blocks, attention)
        self.downsample = Downsample(out_channels, resample) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(super().forward(x))


class UpLevel(Level):
    """A level of the decoder, which doubles the sides unless it is the last."""

    def __init__(
        self, config: Conv2dConfig, channels: int, out_channels: int, blocks: int, attention: bool, resample: bool
    ) -> None:
        super().__init__(config, channels, out_channels, blocks, attention)
        self.upsample = Upsample(out_channels) if resample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(super().forward(x))


class Middle(nn.Sequential):
    """`block_1`, `attn_1`, `block_2`, ... at the lowest resolution."""

    def __init__(self, config: Conv2dConfig, channels: int) -> None:
        super().__init__()
        for index in range(1, config.mid_blocks + 1):
            self.add_module(f"block_{index}", _residual(config, channels, channels))
            if index == 1 and config.mid_attention:
                self.add_module("attn_1", _attention(config, channels))


class Encoder2d(nn.Module):
    """Pictures (B, C, H, W) -> latents (B, dim, H/f, W/f); H and W are multiples of f."""

    def __init__(self, config: Conv2dConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.conv_in = nn.Conv2d(config.in_channels * config.patch**2, config.channels, 3, padding=1, bias=config.bias)
        self.down = nn.ModuleList()
        channels, last = config.channels, len(config.widths) - 1
        for index, (width, factor) in enumerate(zip(config.widths, config.factors, strict=True)):
            resample = config.resample if index < last else None
            level = DownLevel(config, channels, width, config.blocks, factor in config.attention, resample)
            self.down.append(level)
            channels = width
        self.mid = Middle(config, channels)
        self.norm_out = normalisation(channels, config.norm, config.groups)
        kernel = config.latent_kernel
        self.conv_out = nn.Conv2d(channels, config.z_channels or config.dim, kernel, padding=kernel // 2)
        self.quant_conv = nn.Conv2d(config.z_channels, config.dim, 1) if config.z_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv_in(F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x)
        for level in self.down:
            hidden = level(hidden)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(hidden)))))


class Decoder2d(nn.Module):
    """Latents (B, dim, h, w) -> pictures (B, C, f*h, f*w)."""

    def __init__(self, config: Conv2dConfig) -> None:
        super().__init__()
        self.patch = config.patch
        self.post_quant_conv = nn.Conv2d(config.dim, config.z_channels, 1) if config.z_channels else nn.Identity()
        channels = config.widths[-1]
        self.conv_in = nn.Conv2d(config.z_channels or config.dim, channels, 3, padding=1)
        self.mid = Middle(config, channels)
        blocks = config.blocks if config.decoder_blocks is None else config.decoder_blocks
        levels = []
        for index, (width, factor) in reversed(list(enumerate(zip(config.widths, config.factors, strict=True)))):
            levels.append(UpLevel(config, channels, width, blocks, factor in config.attention, index > 0))
            channels = width
        # Kept from the finest level to the coarsest, as in the encoder; run in the other direction.
        self.up = nn.ModuleList(reversed(levels))
        self.norm_out = normalisation(channels, config.norm, config.groups)
        self.conv_out = nn.Conv2d(channels, config.in_channels * config.patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        hidden = self.mid(self.conv_in(self.post_quant_conv(z)))
        for level in reversed(self.up):
            hidden = level(hidden)
        x = self.conv_out(F.silu(self.norm_out(hidden)))
        return F.pixel_shuffle(x, self.patch) if self.patch > 1 else x


@register_network("conv2d", Conv2dConfig)
class Conv2dNetworks(Networks):
    """Encoder2d and Decoder2d of one config."""

    encoder: Encoder2d
    decoder: Decoder2d

    def __init__(self, config: Conv2dConfig) -> None:
        super().__init__()
        config.require_dims()
        self.config = config
        self.encoder = Encoder2d(config)
        self.decoder = Decoder2d(config)
        self.downsample = config.factors[-1]
        if config.channels_last:
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.conv_out.weight

    @property
    def reach(self) -> Reach:
        config = self.config
        beyond = ["GroupNorm"] * (config.norm == "group")
        beyond += ["attention"] * bool(config.attention or config.mid_attention)
        return Reach(_encoder_reach(config), _decoder_reach(config), tuple(beyond))


def _residual(config: Conv2dConfig, channels: int, out_channels: int) -> ResidualBlock:
    return ResidualBlock(
        channels,
        out_channels,
        norm=config.norm,
        groups=config.groups,
        dropout=config.dropout,
        bias=config.bias,
        shortcut=config.shortcut,
    )


def _attention(config: Conv2dConfig, channels: int) -> AttentionBlock:
    return AttentionBlock(channels, norm=config.norm, groups=config.groups)


def _encoder_reach(config: Conv2dConfig) -> tuple[int, int]:
    """From the latent back to the pixels. A residual block has two convolutions of 3x3, which see 1 further each."""
    low, high = -(config.latent_kernel // 2) - 2 * config.mid_blocks, config.latent_kernel // 2 + 2 * config.mid_blocks
    for level in reversed(range(len(config.multipliers))):
        if level < len(config.multipliers) - 1:
            # Position i comes from 2i .. 2i + 2 by a convolution, which is padded after only, and 2i, 2i + 1 by a mean.
            low, high = 2 * low, 2 * high + (2 if config.resample == "conv" else 1)
        low, high = low - 2 * config.blocks, high + 2 * config.blocks
    low, high = config.patch * (low - 1), config.patch * (high + 1) + config.patch - 1
    return -low, high - (config.factors[-1] - 1)


def _decoder_reach(config: Conv2dConfig) -> tuple[int, int]:
    """From the pixels of a position back to the latents."""
    low, high = -1, (config.factors[-1] - 1) // config.patch + 1
    blocks = config.blocks if config.decoder_blocks is None else config.decoder_blocks
    for level in range(len(config.multipliers)):
        if level:  # the convolution after nearest-neighbour upsampling, and that itself
            low, high = (low - 1) // 2, (high + 1) // 2
        low, high = low - 2 * blocks, high + 2 * blocks
    return 2 * config.mid_blocks + 1 - low, high + 2 * config.mid_blocks + 1
