"""Validation's scalars: summed over samples and ranks before any mean, so that uneven batches and ranks weigh right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Callback, LightningModule, Trainer

from mmtok.quantizers.usage import UsageWindow
from mmtok.training.alarms import high_frequency_energy
from mmtok.training.callbacks.usage import reduced, usage_scalars
from mmtok.training.loggers import RunLog
from mmtok.training.logs import ScalarBuffer
from mmtok.training.measures import psnr


class Validation(Callback):
    """Logs `val/*`: losses, PSNR, the quantization gap, the share of fine detail kept, usage over the whole set."""

    def __init__(self, log: RunLog, say: Callable[[str], None]) -> None:
        self.run_log = log
        self.say = say

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._sums, self._usage = ScalarBuffer(), UsageWindow()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        x, count = outputs["x"], outputs["x"].shape[0]
        values = {"loss": outputs["loss"], **{f"loss/{name}": term for name, term in outputs["terms"].items()}}
        values["psnr"] = psnr(outputs["reconstruction"], x).mean()
        if "bypass" in outputs:
            values["psnr_bypass"] = psnr(outputs["bypass"], x).mean()
        values["fine_input"] = high_frequency_energy(x).mean()
        values["fine_kept"] = high_frequency_energy(outputs["reconstruction"]).mean()
        self._sums.add(values, weight=count)
        self._usage.add(outputs["quantized"].stats)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        means = self._sums.flush(trainer.world_size)
        if not means:
            return
        fine = means.pop("fine_input")
        means["fine_detail"] = means.pop("fine_kept") / fine if fine > 0 else 1.0
        if "psnr_bypass" in means:
            means["gap_db"] = means["psnr_bypass"] - means["psnr"]
        usage = self._usage.read(reduced(self._usage.sums, trainer.world_size))
        means |= usage_scalars(usage)
        step = trainer.global_step
        self.run_log.scalars(step, {f"val/{name}": value for name, value in means.items()})
        if trainer.is_global_zero:
            self.say(summary(step, self.run_log.latest))


def summary(step: int, values: dict[str, float]) -> str:
    """The line after a validation."""
    parts = [f"validation at step {step:,}", f"loss {values['val/loss']:.3g}", f"psnr {values['val/psnr']:.2f}"]
    if "val/gap_db" in values:
        parts.append(f"quantizer costs {values['val/gap_db']:.2f} dB")
    parts.append(f"fine detail {100 * values['val/fine_detail']:.0f} %")
    if "val/usage/active" in values:
        parts.append(f"codes {100 * values['val/usage/active']:.0f} %")
    return " | ".join(parts)
