"""The pieces of a convolutional image network, named as in taming-transformers, whose weights so map one to one.

Esser et al. 2021, "Taming Transformers for High-Resolution Image Synthesis" (arXiv 2012.09841), after Ho et al. 2020.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["group", "none"]
Shortcut = Literal["input", "hidden"]
Resample = Literal["conv", "pool"]


def normalisation(channels: int, norm: Norm, groups: int) -> nn.Module:
    """GroupNorm with the largest number of groups, at most `groups`, that divides the channels; or nothing."""
    return nn.Identity() if norm == "none" else nn.GroupNorm(group_count(channels, groups), channels, eps=1e-6)


def group_count(channels: int, groups: int) -> int:
    """The largest number, at most `groups`, that divides the channels."""
    return next(count for count in range(min(groups, channels), 0, -1) if channels % count == 0)


class ResidualBlock(nn.Module):
    """(B, C, H, W) -> (B, C', H, W): two 3x3 convolutions, each after a norm and a SiLU, beside a shortcut."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        norm: Norm = "group",
        groups: int = 32,
        dropout: float = 0.0,
        bias: bool = True,
        shortcut: Shortcut = "input",
    ) -> None:
        super().__init__()
        self.norm1 = normalisation(channels, norm, groups)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)
        self.norm2 = normalisation(out_channels, norm, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut = shortcut
        if channels != out_channels:
            source = channels if shortcut == "input" else out_channels
            self.nin_shortcut = nn.Conv2d(source, out_channels, 1, bias=bias)
        self.widens = channels != out_channels

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.conv2(self.dropout(F.silu(self.norm2(hidden))))
        if self.widens:
            # VQGAN+ was trained with the shortcut on the result instead of the input; its weights need it there.
            x = self.nin_shortcut(x if self.shortcut == "input" else hidden)
        return x + hidden


class AttentionBlock(nn.Module):
    """(B, C, H, W) -> the same: one head of self-attention over all positions, beside a shortcut."""

    def __init__(self, channels: int, *, norm: Norm = "group", groups: int = 32) -> None:
        super().__init__()
        self.norm = normalisation(channels, norm, groups)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (layer(normed).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(mixed[:, 0].transpose(1, 2).unflatten(2, x.shape[2:]))


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, C, H/2, W/2), by a convolution of stride 2 or by averaging."""

    def __init__(self, channels: int, resample: Resample = "conv") -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if resample == "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is None:
            return F.avg_pool2d(x, 2)
        # Padded right and below only, as "same" padding of an even size has it: weights of others rely on it.
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """(B, C, H, W) -> (B, C, 2H, 2W): nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
