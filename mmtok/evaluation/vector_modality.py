"""Vectors, as validation measures them: the error in standardised channels, where 1 is what the mean vector leaves."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.evaluation.modality import Exhibit


class VectorMeter:
    """Mean squared error with and without the quantizer. Vectors come as the objective compares them."""

    def __init__(self, device: torch.device) -> None:
        self.total = torch.zeros(3, dtype=torch.float64, device=device)

    @property
    def sums(self) -> dict[str, Tensor]:
        return {"squares": self.total}

    def update(self, x: Tensor, reconstruction: Tensor, bypass: Tensor, lengths: Tensor | None = None) -> None:
        for slot, y in enumerate((reconstruction, bypass)):
            self.total[slot] += (y.double() - x.double()).square().mean(1).sum()
        self.total[2] += len(x)

    def result(self, entropy: float | None = None) -> dict[str, float]:
        coded, bypass, count = self.total.tolist()
        if not count:
            return dict.fromkeys(("mse", "mse_bypass", "quantization_gap"), float("nan"))
        gap = 10 * math.log10(max(coded, 1e-12) / max(bypass, 1e-12))
        return {"mse": coded / count, "mse_bypass": bypass / count, "quantization_gap": gap}


class VectorModality:
    """Errors, and nothing to look at."""

    unit = "vec/s"

    def meter(self, spec: CodeSpec, device: torch.device) -> VectorMeter:
        return VectorMeter(device)

    def glance(
        self, reconstruction: Tensor, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        return {"mse": (reconstruction.float() - x.float()).square().mean()}, float(len(x))

    def line(self, values: Mapping[str, float]) -> list[str]:
        return [f"mse {values['val/mse']:.3f}", f"quantizer costs {values['val/quantization_gap']:.2f} dB"]

    def exhibit(
        self,
        x: Tensor,
        reconstructions: Mapping[str, Tensor],
        spec: CodeSpec,
        *,
        lengths: Tensor | None = None,
        title: str = "",
    ) -> Exhibit | None:
        return None
