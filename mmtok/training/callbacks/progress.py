"""The line of progress: `step 12,400/100,000 | loss 0.412 | psnr 23.1 | codes 97 % | 412 img/s | eta 2 h 11 min`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback, Trainer

from mmtok.evaluation.modalities import modality_of
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig

SHOWN = {"loss": "loss {:.3g}", "psnr": "psnr {:.1f}", "si_sdr": "si-sdr {:.1f}"}
"""Scalars of the window that the line shows, where they are logged, and how."""


class Progress(Callback):
    """Says a line after every window of scalars, from what was logged; it measures nothing itself."""

    def __init__(self, config: LogConfig, log: RunLog, say: Callable[[str], None]) -> None:
        self.config = config
        self.run_log = log
        self.say = say
        self._pace: float | None = None
        self._shown = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._shown = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step == self._shown or (step != 1 and step % self.config.every_steps):
            return
        self._shown = step
        if step > 1:  # the first step compiles and starts workers
            self._pace = smooth(self._pace, self.run_log.latest["speed/wall_seconds"])
        if trainer.is_global_zero:
            modality = modality_of(pl_module.tokenizer.spec)
            unit = "samples/s" if modality is None else modality.unit
            self.say(line(step, trainer.max_steps, self.run_log.latest, self._pace, unit))


def smooth(pace: float | None, seconds: float, weight: float = 0.3) -> float:
    """Exponentially smoothed seconds a step: a validation in one window must not double the estimate."""
    return seconds if pace is None else (1 - weight) * pace + weight * seconds


def line(step: int, last: int, values: Mapping[str, float], pace: float | None, unit: str = "img/s") -> str:
    """One line of progress; parts that are not known yet are left out.

    Args:
        step: updates done.
        last: updates in all.
        values: the latest scalars by their names in the log.
        pace: seconds an update takes, everything included; None after the first.
        unit: of samples a second.
    """
    parts = [f"step {step:,}/{last:,}"]
    parts += [form.format(values[name]) for name, form in SHOWN.items() if name in values]
    if "usage/active" in values:
        parts.append(f"codes {100 * values['usage/active']:.0f} %")
    if pace is None:
        if "speed/wall_seconds" in values:
            parts.append(f"first step after {values['speed/wall_seconds']:.1f} s")
        return " | ".join(parts)
    parts.append(f"{values['speed/samples_per_second']:,.0f} {unit}")
    parts.append(f"data wait {100 * values['speed/data_wait']:.0f} %")
    if "speed/memory_gib" in values:
        parts.append(f"{values['speed/memory_gib']:.1f} GiB")
    parts.append(f"eta {duration(pace * (last - step))}")
    return " | ".join(parts)


def duration(seconds: float) -> str:
    """'12 s', '3 min 20 s', '2 h 11 min', '3 d 4 h'."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = round(seconds)
    for i, (name, size) in enumerate(units):
        if left >= size or size == 1:
            text = f"{left // size} {name}"
            if i + 1 < len(units) and (rest := left % size // units[i + 1][1]):
                text += f" {rest} {units[i + 1][0]}"
            return text
    raise AssertionError(seconds)
