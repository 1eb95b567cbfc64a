"""LPIPS: a distance of deep features, weighted to agree with what people see.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924), through
the `lpips` package (0.1), whose backbones are looked for on this machine and never downloaded on the way.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.losses.base import Loss, LossConfig, masked_mean, register_loss
from mmtok.losses.frozen import freeze, load_weights, read_weights
from mmtok.weights import lpips_path

BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""Net -> its file in torchvision's cache."""
SMALLEST = {"alex": 31, "vgg": 16}
"""Shortest side, in pixels, of which a net's last features have a position."""


@dataclass(frozen=True, kw_only=True)
class LPIPSConfig(LossConfig):
    net: Literal["alex", "vgg"] = "vgg"
    """Backbone. vgg is the one to train with, alex the one results are reported in, at an 18th of the cost on CPUs."""
    weights: str | None = None
    """Safetensors or torch file of the backbone; None takes what `mmtok doctor --fetch lpips` or torchvision left."""


@register_loss("lpips", LPIPSConfig)
class LPIPS(Loss):
    """Mean LPIPS of a batch; gradients reach the reconstruction and nothing else.

    Pictures (B, 1 or 3, H, W) in [-1, 1], at least `SMALLEST` pixels a side. Under a mask, what is padding is equal on
    both sides and its positions do not count.

    Raises:
        ValueError: the backbone's weights are nowhere, or of another network.
    """

    config: LPIPSConfig

    def __init__(self, config: LPIPSConfig) -> None:
        super().__init__()
        self.config = config
        self.network = freeze(build_lpips(config.net, config.weights))

    @classmethod
    def lacks(cls, config: LossConfig) -> str:
        assert isinstance(config, LPIPSConfig)
        if find_spec("lpips") is None:
            return "the package lpips (pip install lpips)"
        found = config.weights or find_lpips(config.net)
        if found and Path(found).expanduser().is_file():
            return ""
        return f"the weights of {config.net}. {_remedy(config.net)}"

    def forward(self, reconstruction: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            reconstruction, x = (signal.where(mask, 0.0) for signal in (reconstruction, x))
        maps = self._maps(reconstruction, x)
        if mask is None:
            return torch.stack([values.mean() for values in maps]).sum()
        masks = [F.interpolate(mask.float(), size=values.shape[2:], mode="area") >= 0.5 for values in maps]
        return torch.stack([masked_mean(*part) for part in zip(maps, masks, self.counts(masks), strict=True)]).sum()

    def distances(self, reconstruction: Tensor, x: Tensor) -> Tensor:
        """The LPIPS of each picture, (B,)."""
        return torch.stack([values.flatten(1).mean(1) for values in self._maps(reconstruction, x)]).sum(0)

    def _maps(self, reconstruction: Tensor, x: Tensor) -> list[Tensor]:
        """Weighted squared differences of each layer's features, (B, 1, h, w) each."""
        self._check(x)
        with torch.no_grad():  # half of the graph, and of the memory
            target = self._features(x)
        own = self._features(reconstruction)
        heads = self.network.module.lins
        with torch.autocast(x.device.type, enabled=False):
            return [head((a - b).square()) for head, a, b in zip(heads, own, target, strict=True)]

    def _features(self, x: Tensor) -> list[Tensor]:
        """Features of every layer, of unit length along the channels."""
        backbone = self.network.module
        with torch.autocast(x.device.type, enabled=False):
            maps = backbone.net(backbone.scaling_layer(colour(x).float()))
            # The package's epsilon stands outside the root, whose gradient at a position without any feature is NaN.
            return [m / (m.square().sum(1, keepdim=True).clamp(min=1e-20).sqrt() + 1e-10) for m in maps]

    def _check(self, x: Tensor) -> None:
        least = SMALLEST[self.config.net]
        if min(x.shape[2:]) < least:
            other = f" Use net: vgg ({SMALLEST['vgg']} pixels)." if min(x.shape[2:]) >= SMALLEST["vgg"] else ""
            size = f"{x.shape[2]} x {x.shape[3]}"
            raise ValueError(
                f"LPIPS with '{self.config.net}' needs pictures of {least} pixels a side, got {size}.{other}"
            )


def colour(x: Tensor) -> Tensor:
    """(B, 1 or 3, H, W) -> (B, 3, H, W)."""
    if x.shape[1] not in (1, 3):
        raise ValueError(f"Perceptual losses see pictures of 1 or 3 channels, got {x.shape[1]}.")
    return x.expand(-1, 3, -1, -1)


def find_lpips(net: str) -> Path | None:
    """Where the backbone of a net lies on this machine: the fetched file, else torchvision's cache."""
    cached = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
    return next((path for path in (lpips_path(net), cached) if path.is_file()), None)


def build_lpips(net: str, weights: str | Path | None = None) -> Any:
    """The `lpips` package's network with weights from this machine.

    Args:
        net: "alex" or "vgg".
        weights: a file with torchvision's names (`features.0.weight`); heads (`lin0.model.1.weight`) are taken from it
            where it has them, from the package otherwise.

    Raises:
        ValueError: no weights, or those of another network; names every choice.
    """
    if find_spec("lpips") is None:
        raise ValueError("The loss 'lpips' needs a package: pip install lpips.")
    path = weights or find_lpips(net)
    if path is None:
        raise ValueError(f"The loss 'lpips' ({net}) found no backbone weights. {_remedy(net)}")
    import lpips

    state = _package_heads(net) | read_weights(path)
    # Never the package's download. On the meta device nothing is drawn, least of all 138 million unused parameters.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision deprecates the argument that the package passes
        network = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
    network.scaling_layer = lpips.lpips.ScalingLayer()  # constants, which have no values on the meta device
    load_weights(network, _renamed(network, state), path)
    return network


def _renamed(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Torchvision's names and the heads' -> the names that the package's network has."""
    renamed = dict(network.scaling_layer.state_dict(prefix="scaling_layer."))  # type: ignore[union-attr]
    for name in network.state_dict():
        # net.slice2.4.weight is features.4.weight; lins.0 and lin0 are one module.
        source = re.sub(r"^net\.slice\d\.", "features.", name).replace("lins.", "lin", 1)
        if source in state:
            renamed[name] = state[source]
    return renamed


def _package_heads(net: str) -> dict[str, Tensor]:
    import lpips

    return read_weights(Path(lpips.__file__).parent / "weights" / "v0.1" / f"{net}.pth")


def _remedy(net: str) -> str:
    cached = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[net]
    return f"Run: mmtok doctor --fetch lpips; or give loss.NAME.weights=PATH; or put torchvision's file at {cached}."
