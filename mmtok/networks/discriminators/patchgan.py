"""Discriminators of picture patches: strided convolutions as in pix2pix, and pooled ones as in VQGAN+.

Isola et al. 2017 (arXiv 1611.07004), without its BatchNorm; Weber et al. 2024, MaskBit (arXiv 2409.16211), whose blur
before halving (Zhang 2019, arXiv 1904.11486) keeps a shift of one pixel from changing the verdict. Theirs pads the blur
with zeros, and pools to 16 x 16 before the last layers, which at 256 px changes nothing; ours does neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.networks.blocks2d import Norm, normalisation
from mmtok.networks.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    Verdict,
    register_discriminator,
    run_layers,
)

_SLOPE, _BLUR_SLOPE = 0.2, 0.1


@dataclass(frozen=True, kw_only=True)
class PatchGANConfig(DiscriminatorConfig):
    channels: int = 64
    """Width of the first layer; each further one doubles it, up to eight times."""
    layers: int = 3
    """Layers that halve the sides. 3 make each logit see 70 x 70 pixels, 2 make it 34 x 34, 1 makes it 16 x 16."""
    norm: Norm = "group"
    """After every convolution but the first and the last. The original's BatchNorm is wrong under DDP."""

    def __post_init__(self) -> None:
        _check(self.channels, self.layers)


@register_discriminator("patchgan", PatchGANConfig)
class PatchGAN(Discriminator):
    """Convolutions of 4 x 4, as in pix2pix and taming."""

    def __init__(self, config: PatchGANConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * min(2**layer, 8) for layer in range(config.layers + 1)]
        layers: list[nn.Module] = [
            nn.Conv2d(config.in_channels, widths[0], 4, stride=2, padding=1),
            nn.LeakyReLU(_SLOPE, inplace=True),
        ]
        for number, (width, wider) in enumerate(pairwise(widths), start=1):
            stride = 2 if number < config.layers else 1
            layers += [
                # A bias before a norm has no effect.
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=config.norm == "none"),
                normalisation(wider, config.norm, 32),
                nn.LeakyReLU(_SLOPE, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Verdict:
        return single_part(self.layers, x)


@dataclass(frozen=True, kw_only=True)
class BlurPatchConfig(DiscriminatorConfig):
    channels: int = 128
    """Width of the first layer; each stage but the first doubles it."""
    layers: int = 3
    """Stages, each of which halves the sides."""
    norm: Norm = "group"
    """After the convolution of each stage."""
    blur: bool = True
    """Halve by a 4 x 4 binomial blur; otherwise by the mean of 2 x 2."""

    def __post_init__(self) -> None:
        _check(self.channels, self.layers)


@register_discriminator("blur", BlurPatchConfig)
class BlurPatch(Discriminator):
    """Convolutions of 3 x 3, each halved by a blur, between two of 5 x 5."""

    def __init__(self, config: BlurPatchConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels, *(config.channels * 2**stage for stage in range(config.layers))]
        first = nn.Conv2d(config.in_channels, widths[0], 5, padding=2)
        layers: list[nn.Module] = [first, nn.LeakyReLU(_BLUR_SLOPE, True)]
        for width, wider in pairwise(widths):
            layers += [
                nn.Conv2d(width, wider, 3, padding=1),
                Blur() if config.blur else nn.AvgPool2d(2, ceil_mode=True),
                normalisation(wider, config.norm, 32),
                nn.LeakyReLU(_BLUR_SLOPE, True),
            ]
        last = widths[-1]
        layers += [nn.Conv2d(last, last, 1), nn.LeakyReLU(_BLUR_SLOPE, True), nn.Conv2d(last, 1, 5, padding=2)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Verdict:
        return single_part(self.layers, x)


class Blur(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / 2), ceil(W / 2)) under the binomial kernel [1, 3, 3, 1] / 8 each way."""

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, right, below = x.shape[1], x.shape[3] % 2, x.shape[2] % 2
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 4, 4)
        # Repeated at the border: zeros would tell where it is.
        return F.conv2d(F.pad(x, (1, 1 + right, 1, 1 + below), mode="replicate"), kernel, stride=2, groups=channels)


def single_part(layers: nn.Sequential, x: Tensor) -> Verdict:
    """The verdict of a discriminator that is one stack of layers."""
    logits, features = run_layers(layers, x)
    return Verdict((logits,), (features,))


def _check(channels: int, layers: int) -> None:
    if channels < 1 or layers < 1:
        raise ValueError(f"channels and layers must be at least 1, got {channels} and {layers}.")


def _initialise(module: nn.Module) -> None:
    """Small weights, as in pix2pix: a discriminator that starts without an opinion."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
