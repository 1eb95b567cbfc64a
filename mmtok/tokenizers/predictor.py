"""How good an item will be at each length, told by its latents: a budget of quality in one pass, without a decoder.

ElasticTok (Yan et al. 2024, arXiv 2410.08368) trains a network for it; here it is a ridge regression on pooled latents,
solved in closed form after training, with the errors of items it was not fitted to as the margin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmtok.tensorfile import write_tensors

if TYPE_CHECKING:
    from mmtok.tokenizers.axis import Axis
    from mmtok.tokenizers.base import Tokenizer
    from mmtok.tokenizers.latents import Latents

FILE = "lengths.safetensors"
"""Its name in a run directory."""
_FORMAT = "mmtok-lengths-1"
_TENSORS = ("weights", "offset", "scale", "errors")


@dataclass(frozen=True)
class LengthPredictor:
    """Predicts the quality of items at a ladder of lengths, and how sure that is."""

    quality: str
    """psnr or snr, in dB."""
    axis: Axis
    """Along what codes are cut."""
    ladder: tuple[int, ...]
    """Numbers of steps whose quality is predicted, rising; the last is all."""
    fingerprint: str
    """Of the tokenizer it was fitted for."""
    weights: Tensor
    """(2 F + 1, R) float32, of features, their squares and a one."""
    offset: Tensor
    """(F,) mean of the features."""
    scale: Tensor
    """(F,) their deviation."""
    errors: Tensor
    """(101, R) percentiles of predicted less true quality, of items it was not fitted to."""
    fits: bool = True
    """Whether the tokenizer it stands beside is the one it was fitted for."""

    @torch.no_grad()
    def predict(self, latents: Latents) -> Tensor:
        """(B, R) dB at each length of the ladder, in float32 whatever the networks ran in."""
        device = latents.z.device
        with torch.autocast(device.type, enabled=False):
            rows = expanded(features(latents), self.offset.to(device), self.scale.to(device))
            return rows @ self.weights.to(device)

    @torch.no_grad()
    def choose(self, latents: Latents, target: float, confidence: float) -> Tensor:
        """Steps (B,) int64 of each item: the fewest from which on it is predicted to be as good as `target` dB.

        Args:
            latents: of the items.
            target: dB.
            confidence: share of items that should be as good, of those that can be; the margin is that percentile of
                the errors.
        """
        margin = self.errors[round(100 * confidence)].to(latents.z.device)
        quality = self.predict(latents) - margin
        failed = quality < target
        count = len(self.ladder)
        order = torch.arange(1, count + 1, device=quality.device)
        # The rung behind the last that is too bad; there is none where the last is.
        first = (failed * order).amax(1)
        high = first.clamp(max=count - 1)
        low = (high - 1).clamp(min=0)
        ladder = torch.tensor(self.ladder, device=quality.device)
        bad, good = (quality.gather(1, rung[:, None])[:, 0] for rung in (low, high))
        share = ((target - bad) / (good - bad).clamp(min=1e-6)).clamp(0, 1)
        steps = ladder[low] * (ladder[high] / ladder[low]) ** share  # even in log steps, as the ladder is
        between = steps.ceil().long().clamp(min=ladder[low] + 1).minimum(ladder[high])
        return between.where((first > 0) & (first < count), ladder[high])

    def save(self, path: Path) -> None:
        """Write a safetensors file with a checksum of its tensors in the header."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        about = {
            "format": _FORMAT, "quality": self.quality, "axis": self.axis, "ladder": json.dumps(self.ladder),
            "fingerprint": self.fingerprint, "sha256": _digest(tensors),
        }  # fmt: skip
        write_tensors(tensors, path, about)

    @classmethod
    def load(cls, path: Path) -> LengthPredictor:
        """Read what `save` wrote.

        Raises:
            ValueError: it is damaged, or another file.
        """
        from safetensors import SafetensorError, safe_open

        remedy = "Remove it, or fit it again: mmtok evaluate RUN --task lengths --fit 2000"
        try:
            with safe_open(str(path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read ({error}). {remedy}") from error
        if about.get("format") != _FORMAT or set(tensors) != set(_TENSORS) or about.get("sha256") != _digest(tensors):
            raise ValueError(f"{path} is damaged, or no predictor of lengths. {remedy}")
        axis: Axis = "levels" if about["axis"] == "levels" else "positions"
        ladder = tuple(json.loads(about["ladder"]))
        return cls(about["quality"], axis, ladder, about["fingerprint"], **tensors)


def attach(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """Give a tokenizer the predictor that stands in its folder, if one does.

    Raises:
        ValueError: its file is damaged.
    """
    if (path := folder / FILE).is_file():
        predictor = LengthPredictor.load(path)
        tokenizer.length_predictor = replace(predictor, fits=predictor.fingerprint == tokenizer.fingerprint())
    return tokenizer


def require_predictor(tokenizer: Tokenizer, quality: str) -> LengthPredictor:
    """The predictor of a tokenizer.

    Raises:
        ValueError: there is none, or it is for other weights or another quality.
    """
    predictor, remedy = tokenizer.length_predictor, "Fit one: mmtok evaluate RUN --task lengths --fit 2000"
    if predictor is None:
        raise ValueError(f"this tokenizer has no predictor of lengths ({FILE} beside its run). {remedy}")
    if not predictor.fits:
        raise ValueError(
            f"the predictor of lengths was fitted for other weights ({predictor.fingerprint}), an earlier checkpoint "
            f"say, and these are {tokenizer.fingerprint()}. {remedy}"
        )
    if predictor.quality != quality:
        raise ValueError(f"the predictor of lengths knows {predictor.quality}, not {quality}. Ask for that.")
    return predictor


def features(latents: Latents) -> Tensor:
    """(B, 2 D) float32: mean and logarithm of the deviation of each channel, over the positions that are there."""
    z = latents.z.float()
    inside = z.new_ones(z.shape[:2]) if latents.mask is None else latents.mask.float()
    count = inside.sum(1, keepdim=True).clamp(min=1)
    mean = (z * inside[..., None]).sum(1) / count
    square = ((z - mean[:, None]).square() * inside[..., None]).sum(1) / count
    return torch.cat([mean, 0.5 * (square + 1e-6).log()], 1)


def expanded(rows: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
    """Features (B, F) -> (B, 2 F + 1): standardised and held to 4 deviations, their squares, and a one."""
    unit = ((rows - offset) / scale).clamp(-4, 4)
    return torch.cat([unit, unit.square(), unit.new_ones(len(unit), 1)], 1)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
