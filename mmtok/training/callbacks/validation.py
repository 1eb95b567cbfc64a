"""Validation's scalars: summed over samples and ranks before any mean, so that uneven batches and ranks weigh right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from mmtok.evaluation.metrics import PictureMetrics, psnr
from mmtok.quantizers.usage import UsageWindow
from mmtok.tokenizers.pixels import to_uint8
from mmtok.training.callbacks.usage import reduced, usage_scalars
from mmtok.training.loggers import RunLog
from mmtok.training.logs import ScalarBuffer


class Validation(Callback):
    """Logs `val/*`: losses; what `mmtok evaluate` measures of pictures; the quantization gap; usage of the set."""

    def __init__(self, log: RunLog, say: Callable[[str], None]) -> None:
        self.run_log = log
        self.say = say

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._means, self._usage = ScalarBuffer(), UsageWindow()
        self._pictures = PictureMetrics(pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        x, count = outputs["x"], outputs["x"].shape[0]
        values = {"loss": outputs["loss"], **{f"loss/{name}": term for name, term in outputs["terms"].items()}}
        if x.ndim == 4:
            source = to_uint8(x)
            values["psnr_bypass"] = psnr(source, to_uint8(outputs["bypass"])).mean()
            self._pictures.update(source, to_uint8(outputs["reconstruction"]))
        if count == 0:  # all padding: the means are NaN, but every rank must bring the same names
            values = {name: torch.zeros_like(value) for name, value in values.items()}
        self._means.add(values, weight=count)
        self._usage.add(outputs["quantized"].stats)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        means = self._means.flush(trainer.world_size)
        if not means:
            return
        if "psnr_bypass" in means:
            self._pictures.sums = reduced({"sums": self._pictures.sums}, trainer.world_size)["sums"]
            means |= self._pictures.result()
            means["quantization_gap"] = means["psnr_bypass"] - means["psnr"]
        means |= usage_scalars(self._usage.read(reduced(self._usage.sums, trainer.world_size)))
        step = trainer.global_step
        self.run_log.scalars(step, {f"val/{name}": value for name, value in means.items()})
        if trainer.is_global_zero:
            self.say(summary(step, self.run_log.latest))


def summary(step: int, values: Mapping[str, float]) -> str:
    """The line after a validation."""
    parts = [f"validation at step {step:,}", f"loss {values['val/loss']:.3g}"]
    if "val/psnr" in values:
        parts.append(f"psnr {values['val/psnr']:.2f}")
        parts.append(f"quantizer costs {values['val/quantization_gap']:.2f} dB")
        parts.append(f"fine detail {100 * values['val/high_frequency_ratio']:.0f} %")
    if "val/usage/active" in values:
        parts.append(f"codes {100 * values['val/usage/active']:.0f} %")
    return " | ".join(parts)
