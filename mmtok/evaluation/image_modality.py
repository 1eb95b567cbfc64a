"""Pictures, as validation measures and shows them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.evaluation import metrics
from mmtok.evaluation.modality import Exhibit
from mmtok.evaluation.pictures import contact_sheet
from mmtok.tokenizers.pixels import to_uint8


class ImageMeter:
    """What `mmtok evaluate` measures of pictures, and the quantization gap."""

    def __init__(self, device: torch.device) -> None:
        self.pictures = metrics.PictureMetrics(device)
        self.bypass = torch.zeros(2, dtype=torch.float64, device=device)

    @property
    def sums(self) -> dict[str, Tensor]:
        return {"pictures": self.pictures.sums, "bypass": self.bypass}

    def update(self, x: Tensor, reconstruction: Tensor, bypass: Tensor, lengths: Tensor | None = None) -> None:
        source = to_uint8(x)
        self.pictures.update(source, to_uint8(reconstruction))
        self.bypass[0] += metrics.psnr(source, to_uint8(bypass)).sum()
        self.bypass[1] += len(x)

    def result(self, entropy: float | None = None) -> dict[str, float]:
        total, count = self.bypass.tolist()
        found = {"psnr_bypass": total / count if count else float("nan"), **self.pictures.result()}
        return found | {"quantization_gap": found["psnr_bypass"] - found["psnr"]}


class ImageModality:
    """Contact sheets, and fidelity on rounded pixels."""

    unit = "img/s"

    def meter(self, spec: CodeSpec, device: torch.device) -> ImageMeter:
        return ImageMeter(device)

    def glance(
        self, reconstruction: Tensor, x: Tensor, lengths: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | float]:
        return {"psnr": psnr(reconstruction, x).mean()}, float(len(x))

    def line(self, values: Mapping[str, float]) -> list[str]:
        return [
            f"psnr {values['val/psnr']:.2f}",
            f"quantizer costs {values['val/quantization_gap']:.2f} dB",
            f"fine detail {100 * values['val/high_frequency_ratio']:.0f} %",
        ]

    def exhibit(
        self,
        x: Tensor,
        reconstructions: Mapping[str, Tensor],
        spec: CodeSpec,
        *,
        lengths: Tensor | None = None,
        title: str = "",
    ) -> Exhibit | None:
        if x.shape[1] not in (1, 3):
            return None
        source = to_uint8(x)
        rows = {"input": source}
        for label, reconstruction in reconstructions.items():
            y = to_uint8(reconstruction)
            rows[f"reconstruction{label}"] = y
            rows[f"difference{label}"] = ((y.int() - source.int()) / 2 + 127.5).round().to(torch.uint8)
        return Exhibit(contact_sheet(rows, title=f"{title}; difference around grey, halved"))


@torch.no_grad()
def psnr(reconstruction: Tensor, x: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each item in dB (B,), of signals in [-1, 1] that are not rounded to pixels."""
    error = (reconstruction.float().clamp(-1, 1) - x.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp(min=1e-10))
