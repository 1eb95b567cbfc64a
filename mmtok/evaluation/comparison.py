"""Everything that is measured between pictures and what stands in for them, a tokenizer's result or a codec's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.evaluation.features import Features, build_features
from mmtok.evaluation.frechet import ENOUGH, FeatureSums, frechet_distance
from mmtok.evaluation.kid import KEPT, LARGEST, LEAST, SEED, SUBSETS, kernel_distance
from mmtok.evaluation.metrics import PictureMetrics
from mmtok.losses.perceptual import LPIPS, SMALLEST, LPIPSConfig
from mmtok.tokenizers.pixels import to_unit

AT_ONCE = 16
"""Pictures that LPIPS sees at a time: its features take a hundred times the room of the pictures."""


@dataclass(frozen=True)
class Instruments:
    """What measures, built once for all comparisons."""

    device: torch.device
    features: Features | None
    """Of the Frechet and the kernel distance."""
    lpips: LPIPS | None
    without_lpips: str = ""
    """Why there is no LPIPS."""


def build_instruments(features: str | Features, lpips: str, device: torch.device | str) -> Instruments:
    """Extractor and LPIPS on a device.

    Args:
        features: "auto", a name of `mmtok.evaluation.features`, an extractor, or "none".
        lpips: "auto" (alex where its weights are), "alex", "vgg", or "none".
        device: where to compute.

    Raises:
        ValueError: unknown names, or weights that are asked for and not here.
    """
    if lpips not in ("auto", "none", *SMALLEST):
        raise ValueError(f"There is no LPIPS '{lpips}'. Known: auto, {', '.join(SMALLEST)}, none.")
    config = LPIPSConfig(net="vgg" if lpips == "vgg" else "alex")
    # Of the remedies the first one is for everybody, the others are for recipes.
    lacks = {"none": "not asked for", "auto": LPIPS.lacks(config).partition(";")[0]}.get(lpips, "")
    network = None if lacks else LPIPS(config).to(device)
    extractor: Features | None = None
    if not isinstance(features, str):
        extractor = features
    elif features != "none":
        extractor = build_features(features)
    return Instruments(torch.device(device), extractor.to(device) if extractor else None, network, lacks)


class FeatureSet:
    """Features of one side: sums over all pictures, and those of the first ones."""

    def __init__(self, dim: int, device: torch.device) -> None:
        self.sums = FeatureSums(dim, device)
        self._kept: list[Tensor] = []

    def update(self, features: Tensor) -> None:
        """Features (B, D) of some pictures."""
        left = KEPT - sum(map(len, self._kept))
        self.sums.update(features)
        self._kept.append(features[:left].cpu())

    @property
    def kept(self) -> Tensor:
        """(N, D) of the first `KEPT` pictures."""
        return torch.cat(self._kept)


class Comparison:
    """Sums over pictures and their stand-ins.

    Args:
        instruments: what measures.
        reference: features of the same pictures in the same order, from an earlier comparison.
    """

    def __init__(self, instruments: Instruments, reference: FeatureSet | None = None) -> None:
        self.instruments = instruments
        self.pictures = PictureMetrics(instruments.device)
        self.lpips = torch.zeros(2, dtype=torch.float64, device=instruments.device)
        extractor, self._known = instruments.features, reference is not None
        self.reference, self.result_set = reference, None
        if extractor is not None:
            self.reference = reference or FeatureSet(extractor.dim, instruments.device)
            self.result_set = FeatureSet(extractor.dim, instruments.device)

    def update(self, source: Tensor, result: Tensor) -> None:
        """Pictures and their stand-ins, uint8 (B, C, H, W)."""
        self.pictures.update(source, result)
        extractor, lpips = self.instruments.features, self.instruments.lpips
        if extractor is not None:
            assert self.reference is not None
            assert self.result_set is not None
            self.result_set.update(extractor(result))
            if not self._known:
                self.reference.update(extractor(source))
        if lpips is not None and min(source.shape[2:]) >= SMALLEST[lpips.config.net]:
            for x, y in zip(source.split(AT_ONCE), result.split(AT_ONCE), strict=True):
                self.lpips[0] += lpips.distances(to_unit(y), to_unit(x)).double().sum()
            self.lpips[1] += len(source)

    def metrics(self) -> dict[str, float]:
        """Every measure by name."""
        found = self.pictures.result()
        extractor, lpips = self.instruments.features, self.instruments.lpips
        if lpips is not None and self.lpips[1] > 0:
            found[lpips_name(lpips)] = float(self.lpips[0] / self.lpips[1])
        if extractor is not None and self.result_set is not None and self.reference is not None:
            if self.reference.sums.count > 1:
                found[extractor.name] = frechet_distance(self.result_set.sums, self.reference.sums)
            if self.reference.sums.count >= LEAST:
                distance = kernel_distance(self.reference.kept, self.result_set.kept)
                found |= {kid_name(extractor): distance.mean, f"{kid_name(extractor)}_std": distance.std}
        return found

    def choices(self) -> dict[str, Any]:
        """What would change the numbers."""
        extractor, lpips, samples = self.instruments.features, self.instruments.lpips, int(self.pictures.sums[0])
        found: dict[str, Any] = {"lpips": {"absent": self.instruments.without_lpips or "the pictures are too small"}}
        if lpips is not None and self.lpips[1] > 0:
            found["lpips"] = {
                "name": lpips_name(lpips),
                "net": lpips.config.net,
                "version": "0.1, of the lpips package",
                "input": "the 8-bit values in [-1, 1], float32, at their own size; mean over pictures",
                "samples": int(self.lpips[1]),
            }
        if extractor is not None:
            found["frechet"] = {
                "name": extractor.name,
                "features": extractor.description,
                "reference": "the inputs of the same pictures",
                "samples": samples,
                "enough_samples": samples >= ENOUGH,
            }
        if extractor is not None and samples >= LEAST:
            used = min(samples, KEPT)
            found["kid"] = {
                "name": kid_name(extractor),
                "kernel": "(x.y / D + 1)^3 on the features of the Frechet distance",
                "estimator": "unbiased MMD^2 over pairs of different pictures; mean and std over random subsets",
                "samples": used,
                "subsets": SUBSETS,
                "subset_size": min(LARGEST, used // 2),
                "seed": SEED,
            }
        return found


def lpips_name(lpips: LPIPS) -> str:
    """As reports carry it."""
    return f"LPIPS-{lpips.config.net}"


def kid_name(features: Features) -> str:
    """As reports carry it."""
    return features.name.replace("FD-", "KID-", 1)


def batches_of(loader: Iterable[Mapping[str, Any]], most: int | None) -> Iterator[Tensor]:
    """The pictures "x" of a loader's batches, up to a number of pictures."""
    seen = 0
    for batch in loader:
        if most is not None and seen >= most:
            return
        x = batch["x"] if most is None else batch["x"][: most - seen]
        seen += len(x)
        yield x


class Examples:
    """Some pictures of a set, spread over it, with their stand-ins.

    Args:
        wanted: how many.
        every: one picture in so many may be taken; neighbours in a set are often alike.
    """

    def __init__(self, wanted: int, every: int) -> None:
        self.wanted, self.every, self._seen = wanted, every, 0
        self._rows: list[tuple[Tensor, ...]] = []

    def add(self, *batches: Tensor) -> None:
        """The next pictures, uint8 (B, C, H, W), one batch a row."""
        for i in range(-self._seen % self.every, len(batches[0]), self.every):
            if len(self._rows) < self.wanted:
                self._rows.append(tuple(batch[i].cpu() for batch in batches))
        self._seen += len(batches[0])

    def stacked(self) -> tuple[Tensor, ...] | None:
        """(N, C, H, W) of each row, white below and beside smaller pictures; None where no picture came."""
        if not self._rows:
            return None
        height, width = (max(row[0].shape[axis] for row in self._rows) for axis in (1, 2))

        def pad(picture: Tensor) -> Tensor:
            return F.pad(picture, (0, width - picture.shape[2], 0, height - picture.shape[1]), value=255)

        return tuple(torch.stack([pad(picture) for picture in pictures]) for pictures in zip(*self._rows, strict=True))
