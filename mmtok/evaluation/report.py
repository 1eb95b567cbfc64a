"""What an evaluation leaves: figures, how codebooks are used, and what would change a number."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.quantizers.usage import measure

MAX_COUNTED = 2**20
"""Codebooks above this size are too large for a table of counts; their usage is left out."""


@dataclass(frozen=True)
class EvaluationReport:
    """What was found of a tokenizer on held-out data."""

    samples: int
    """Items measured."""
    metrics: dict[str, float]
    """By name, as `choices` defines them."""
    usage: list[dict[str, Any]]
    """Measures and state of each level's codebook."""
    choices: dict[str, Any]
    """What would change a number: definitions, features, versions, what the caller knows of data and weights."""
    counts: tuple[Tensor, ...] = field(default=(), repr=False, compare=False)
    """Occurrences of each code, (K,) a level. Not written to the file."""
    examples: tuple[Tensor, Tensor] | None = field(default=None, repr=False, compare=False)
    """uint8 inputs and reconstructions of some pictures, smaller ones on white. Not written to the file."""
    clips: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = field(default=None, repr=False, compare=False)
    """Inputs and reconstructions of some sounds, (C, S) each. Not written to the file."""
    texts: tuple[tuple[str, ...], tuple[str, ...]] | None = field(default=None, repr=False, compare=False)
    """Inputs and reconstructions of some texts. Not written to the file."""
    baselines: tuple[dict[str, Any], ...] = ()
    """What codecs make of the same items."""
    by_levels: tuple[dict[str, Any], ...] = ()
    """The measures with only the first levels of codes, a row for each number of them, where levels can be left out."""
    probe: dict[str, Any] = field(default_factory=dict)
    """What the codes know of labels, where that was asked for."""

    def to_dict(self) -> dict[str, Any]:
        """What the file holds; a number that does not exist is None."""
        plain = {"samples": self.samples, "metrics": self.metrics, "usage": self.usage, "choices": self.choices}
        more = {"by_levels": list(self.by_levels), "baselines": list(self.baselines), "probe": self.probe}
        return finite(plain | {name: value for name, value in more.items() if value})

    def save(self, path: str | Path) -> None:
        """Write JSON."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


class CodeCounts:
    """Occurrences of each code of each level.

    Attributes:
        levels: (K,) int64 each; empty for a codebook above `MAX_COUNTED`.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.levels = [torch.zeros(size if size <= MAX_COUNTED else 0, dtype=torch.long) for size in sizes]

    def update(self, ids: Tensor) -> None:
        """Ids (B, L, T), -1 where there is no code."""
        for level, counts in enumerate(self.levels):
            if counts.numel():
                used = ids[:, level].flatten()
                counts += torch.bincount(used[used >= 0], minlength=counts.numel()).cpu()

    def usage(self) -> list[dict[str, Any]]:
        """Measures and state of each level that is counted."""
        measured = [measure(counts) for counts in self.levels if counts.numel()]
        return [asdict(level) | {"state": str(level.state())} for level in measured]


def machine(device: torch.device) -> dict[str, Any]:
    """What of the machine changes a number."""
    from mmtok import __version__

    return {
        "device": device.type,
        # torch lets convolutions on a GPU use TF32 unless told otherwise; ids at ties may differ by it.
        "precision": "tf32" if device.type == "cuda" and torch.backends.cudnn.allow_tf32 else "float32",
        "versions": {"mmtok": __version__, "torch": torch.__version__},
    }


def finite(value: Any) -> Any:
    """A plain value with None for what is no finite number: JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
