"""What the measures of a cell read: codes, and what they decode to, of a training and of a held-out set."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.evaluation.audio_quality import groups_of
from mmtok.tokenizers.base import Tokenizer, evaluating

SIDE = 4
"""A picture's values are averaged over at most so many by so many fields for a linear reader."""


@dataclass(frozen=True)
class Tokens:
    """A set of N items, encoded."""

    ids: Tensor
    """(N, L, T) int64, -1 where there is no code."""
    values: Tensor
    """(N, F) float32: a picture's mean values in at most 4 x 4 fields, a sound's mean and deviation over time."""
    labels: Tensor
    """(N,) int64, -1 where unknown."""
    keys: tuple[str, ...]
    units: float
    """Pixels or seconds of all items."""
    grid: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self.values)


@torch.inference_mode()
def read_tokens(
    tokenizer: Tokenizer, batches: Iterable[Mapping[str, Any]], most: int, device: torch.device | str = "cpu"
) -> Tokens:
    """Encode the first items of a loader, each as if it were alone.

    Args:
        tokenizer: moved to the device.
        batches: with "x" as the tokenizer takes it, "key", and where there are some "label" and "lengths".
        most: items at most.
        device: where to compute.

    Raises:
        ValueError: there is no item.
    """
    tokenizer.to(device)
    keys: list[str] = []
    labels: list[int] = []

    def noted() -> Iterable[Mapping[str, Any]]:
        for batch in batches:
            keys.extend(batch["key"])
            labels.extend(batch["label"].tolist() if "label" in batch else [-1] * len(batch["x"]))
            yield batch

    ids: list[Tensor] = []
    values: list[Tensor] = []
    numbers: list[int] = []
    units, grid = 0.0, None
    with evaluating(tokenizer):
        for group in groups_of(noted(), torch.device(device), most):
            latents = tokenizer.embed(group.x)
            out = tokenizer.quantizer(latents.z, latents.mask, grid=latents.grid)
            grid = latents.grid
            ids.append(out.ids.cpu())
            values.append(_pooled(out.values.float(), grid).cpu())
            numbers += group.numbers
            units += group.x[:, 0].numel() / (tokenizer.spec.sample_rate or 1)
    if not numbers:
        raise ValueError("there is no item to encode. Check the shards.")
    order = torch.tensor(numbers).argsort()
    found = [numbers[place] for place in order.tolist()]
    longest = max(part.shape[2] for part in ids)
    return Tokens(
        torch.cat([F.pad(part, (0, longest - part.shape[2]), value=-1) for part in ids])[order],
        torch.cat(values)[order],
        torch.tensor([labels[number] for number in found]),
        tuple(keys[number] for number in found),
        units,
        grid,
    )


def _pooled(values: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """(B, T, D) -> (B, F)."""
    if grid is None:
        return torch.cat([values.mean(1), values.var(1, correction=0).sqrt()], 1)
    fields = values.transpose(1, 2).unflatten(2, grid)
    return F.adaptive_avg_pool2d(fields, (min(SIDE, grid[0]), min(SIDE, grid[1]))).flatten(1)


def labels_by(keys: Iterable[str], pattern: str) -> dict[str, list[str]]:
    """Label -> what the keys say of it, by the named groups of a pattern; empty where a key does not match."""
    found = [re.search(pattern, key) for key in keys]
    matched = [match for match in found if match is not None]
    if not matched or len(matched) < len(found):
        return {}
    return {name: [str(match[name]) for match in matched] for name in matched[0].groupdict()}
