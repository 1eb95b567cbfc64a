"""What the callbacks ask of a kind of signal, so that they know of no pixel and no sample: the contracts.

The table of what answers is in `modalities.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.codes import CodeSpec

if TYPE_CHECKING:
    from PIL.Image import Image


class Meter(Protocol):
    """Sums over the items of a validation set. No ratio is taken before ranks are added."""

    @property
    def sums(self) -> dict[str, Tensor]:
        """The live tensors: whoever adds ranks up writes the totals into them."""

    def update(self, x: Tensor, reconstruction: Tensor, bypass: Tensor, lengths: Tensor | None = None) -> None:
        """A batch: signals, what came back, what comes back without the quantizer; (B, C, ...), and valid samples."""

    def result(self, entropy: float | None = None) -> dict[str, float]:
        """The measures by name, without `val/`; the same names on every rank, and NaN where nothing was measured.

        Args:
            entropy: bits of a position by how often each code occurred, sum of the levels; None without codes.
        """


@dataclass(frozen=True)
class Exhibit:
    """What a person sees, hears and reads of some validation items."""

    picture: Image | None = None
    sounds: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """(S, C) by name, in [-1, 1]: what came back."""
    inputs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """What went in, the same every time."""
    rate: int = 0
    """Samples a second of the sounds."""
    text: str = ""
    """To read."""


class Modality(Protocol):
    """What the callbacks need to know of a kind of signal."""

    unit: str
    """Of throughput: "img/s"."""

    def meter(self, spec: CodeSpec, device: torch.device) -> Meter:
        """Sums for one validation."""

    def glance(
        self, reconstruction: Tensor, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        """Cheap scalars of a training batch (B, C, ...) by their names in the log, on the device and never NaN: means,
        and the number of items behind them, which may be 0.
        """

    def line(self, values: Mapping[str, float]) -> list[str]:
        """Parts of the line after a validation, from what `Meter.result` gave under `val/`."""

    def exhibit(
        self,
        x: Tensor,
        reconstructions: Mapping[str, Tensor],
        spec: CodeSpec,
        *,
        lengths: Tensor | None = None,
        title: str = "",
    ) -> Exhibit | None:
        """Signals (N, C, ...) beside what came back, by label ("" or " (EMA)"); None where they cannot be shown."""
