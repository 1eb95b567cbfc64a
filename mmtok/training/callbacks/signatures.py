"""Alarms of blur, of the quantization gap and of semantic drift, read after every validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.stream import only_valid
from mmtok.evaluation.probe import ProbeResult, probe_ids
from mmtok.training.alarms import Alarm, blur_line, drift_line, gap_line
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig


class Signatures(Callback):
    """Blur and the gap come from validation's scalars; drift from a probe of ids on the first rank's samples."""

    def __init__(self, config: LogConfig, log: RunLog, say: Callable[[str], None]) -> None:
        self.config = config.alarms
        self.run_log = log
        self.say = say
        self.alarms = {"blur": Alarm("blur"), "gap": Alarm("gap"), "drift": Alarm("drift", after=2)}
        self.best = 0.0
        """The probe's best lead over chance so far."""
        self._unlabelled_told = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ids: list[Tensor] = []
        self._labels: list[Tensor] = []
        batches = sum(trainer.num_val_batches)
        # Some of every batch: a set in order of its classes would show the probe only the first of them.
        self._share = ceil(self.config.probe_samples / batches) if batches not in (0, float("inf")) else 64

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        *args: Any,
        **kw: Any,
    ) -> None:
        wanted = self.config.probe_samples - sum(map(len, self._labels))
        if not trainer.is_global_zero or "label" not in batch or wanted <= 0:
            return
        count = min(self._share, wanted)
        ids = outputs["quantized"].ids[:count]
        if ids.shape[1] and (not self._ids or ids.shape[1:] == self._ids[0].shape[1:]):
            self._ids.append(ids.detach())
            self._labels.append(only_valid(batch)["label"][:count].detach())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.sanity_checking:
            return
        step, values = trainer.global_step, self.run_log.latest
        if "val/psnr" in values:
            gap, ratio = values["val/quantization_gap"], values["val/high_frequency_ratio"]
            self._read("blur", step, ratio < self.config.blur_min, blur_line(step, ratio, gap, self.config))
            self._read("gap", step, gap > self.config.gap_max_db, gap_line(step, gap, self.config))
        if self.config.probe_samples:
            self._probe(step)

    def _probe(self, step: int) -> None:
        result = None
        if self._ids:
            result = probe_ids(torch.cat(self._ids), torch.cat(self._labels), self.config.probe_neighbours)
        if result is None:
            if not self._unlabelled_told:
                self._unlabelled_told = True
                self.say("semantic drift: n/a, validation samples of two labelled classes are needed to probe the ids")
            return
        self.run_log.scalars(
            step, {"probe/bag": result.bag, "probe/match": result.match, "probe/chance": result.chance}
        )
        drifted = self._drifted(result)
        line = drift_line(step, result.best, result.chance + self.best, result.chance)
        self._read("drift", step, drifted, line)
        if step >= self.config.after_steps:
            self.best = max(self.best, result.best - result.chance)

    def _drifted(self, result: ProbeResult) -> bool:
        """Whether more of the best lead is lost than allowed, and more than two standard errors explain."""
        lost = self.best - (result.best - result.chance)
        return lost > self.config.drift_max * self.best and lost > 2 * 2**0.5 * result.error

    def _read(self, name: str, step: int, bad: bool, line: str) -> None:
        """One reading of one alarm: a scalar always, a line when it changes."""
        alarm = self.alarms[name]
        change = alarm.read(bad and step >= self.config.after_steps)
        self.run_log.scalars(step, {f"alarm/{name}": float(alarm.raised)})
        if change == "rises":
            self.say(line)
        elif change == "clears":
            self.say(f"{name} is over at step {step:,}")

    def state_dict(self) -> dict[str, Any]:
        alarms = {name: alarm.state_dict() for name, alarm in self.alarms.items()}
        return {"alarms": alarms, "best": self.best, "unlabelled_told": self._unlabelled_told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = float(state_dict["best"])
        self._unlabelled_told = bool(state_dict["unlabelled_told"])
        for name, state in state_dict["alarms"].items():
            self.alarms[name].load_state_dict(state)
