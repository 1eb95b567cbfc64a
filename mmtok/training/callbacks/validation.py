"""Validation's scalars: summed over samples and ranks before any mean, so that uneven batches and ranks weigh right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from mmtok.evaluation.modalities import modality_of
from mmtok.quantizers.usage import UsageWindow
from mmtok.training.callbacks.usage import entropy_of, reduced, usage_scalars
from mmtok.training.loggers import RunLog
from mmtok.training.logs import ScalarBuffer


class Validation(Callback):
    """Logs `val/*`: losses; what the modality's meter measures, of codes cut short its cheapest; usage of the set."""

    def __init__(self, log: RunLog, say: Callable[[str], None]) -> None:
        self.run_log = log
        self.say = say

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._means, self._usage = ScalarBuffer(), UsageWindow()
        spec = pl_module.tokenizer.spec
        self._modality = modality_of(spec)
        self._meter = None if self._modality is None else self._modality.meter(spec, pl_module.device)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        x, lengths = outputs["x"], outputs.get("lengths")
        # Terms are means over what is no padding: a batch of short clips counts for less, whatever rank it is on.
        count = x.shape[0] if lengths is None else int(lengths.sum())
        values = {"loss": outputs["loss"], **{f"loss/{name}": term for name, term in outputs["terms"].items()}}
        if self._meter is not None:
            self._meter.update(x, outputs["reconstruction"], outputs["bypass"], lengths)
        if count == 0:  # all padding: the means are NaN, but every rank must bring the same names
            values = {name: torch.zeros_like(value) for name, value in values.items()}
        self._means.add(values, weight=count)
        self._glance(x, outputs["cut"], lengths)
        self._usage.add(outputs["quantized"].stats)

    def _glance(self, x: Tensor, cut: Mapping[str, Tensor], lengths: Tensor | None) -> None:
        """What codes cut short are worth: "positions/8/psnr"."""
        if self._modality is None:
            return
        for name, y in cut.items():
            values, weight = self._modality.glance(y, x, lengths)
            if not len(x):  # as above
                values = {measure: torch.zeros_like(value) for measure, value in values.items()}
            self._means.add({f"{name}/{measure}": value for measure, value in values.items()}, weight)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        means = self._means.flush(trainer.world_size)
        if not means:
            return
        levels = self._usage.read(reduced(self._usage.sums, trainer.world_size))
        if self._meter is not None:
            for name, total in reduced(self._meter.sums, trainer.world_size).items():
                self._meter.sums[name].copy_(total)
            means |= self._meter.result(entropy_of(levels))
        means |= usage_scalars(levels)
        step = trainer.global_step
        self.run_log.scalars(step, {f"val/{name}": value for name, value in means.items()})
        if trainer.is_global_zero:
            measured = [] if self._modality is None else self._modality.line(self.run_log.latest)
            self.say(summary(step, self.run_log.latest, measured))


def summary(step: int, values: Mapping[str, float], measured: Sequence[str] = ()) -> str:
    """The line after a validation.

    Args:
        step: updates done.
        values: the latest scalars by their names in the log.
        measured: what the modality says of them.
    """
    parts = [f"validation at step {step:,}", f"loss {values['val/loss']:.3g}", *measured]
    if "val/usage/active" in values:
        parts.append(f"codes {100 * values['val/usage/active']:.0f} %")
    return " | ".join(parts)
