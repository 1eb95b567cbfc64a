"""Ends the window of scalars every so many updates, and measures speed: one read from the device a window."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.profilers import Profiler

from datamodules.module import ShardDataModule
from mmtok.evaluation.modalities import modality_of
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig
from mmtok.training.wandb_artifacts import describe

FETCH = "[_TrainingEpochLoop].train_dataloader_next"
SAVE = "save_checkpoint"
VALIDATE = "validation"


class LoopClock(Profiler):
    """Seconds the loop spends waiting for data, saving and validating; all else is the profiler's that was in use.

    Lightning names the wait for the next batch to its profiler, and to nothing else. Measured from the end of one step
    to the start of the next, the wait would include validation, checkpoints and other callbacks.
    """

    def __init__(self, inner: Profiler) -> None:
        super().__init__()
        self.inner = inner
        self.seconds: dict[str, float] = defaultdict(float)
        self._since: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        self.inner.start(action_name)
        if action_name in (FETCH, SAVE, VALIDATE):
            self._since[action_name] = time.perf_counter()

    def stop(self, action_name: str) -> None:
        if action_name in self._since:
            self.seconds[action_name] += time.perf_counter() - self._since.pop(action_name)
        self.inner.stop(action_name)

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by action."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken

    def summary(self) -> str:
        return self.inner.summary()

    def setup(self, *args: Any, **kwargs: Any) -> None:
        self.inner.setup(*args, **kwargs)

    def describe(self) -> None:
        self.inner.describe()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        self.inner.teardown(*args, **kwargs)


class Scalars(Callback):
    """Opens the run's log, ends its windows, closes it."""

    def __init__(self, config: LogConfig, log: RunLog) -> None:
        self.config = config
        self.run_log = log  # `log` is taken: Lightning sets it on every callback
        self.samples = 0
        """Samples seen since the start of the run, over all ranks."""
        self._step = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.clock = LoopClock(trainer.profiler)  # type: ignore[attr-defined]
        trainer.profiler = self.clock  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero:
            data = getattr(trainer, "datamodule", None)
            described = describe(data.config) if self.config.wandb and isinstance(data, ShardDataModule) else None
            self.run_log.open(trainer.global_step, described)
        self._step = trainer.global_step
        self._begin()

    def _begin(self) -> None:
        """Start a window of measuring speed."""
        self._since, self._steps, self._window = time.perf_counter(), 0, 0
        self.clock.take()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        count = batch["x"].shape[0] * trainer.world_size
        self.samples += count
        self._window += count
        if (modality := modality_of(pl_module.tokenizer.spec)) is not None:
            seen = modality.glance(outputs["reconstruction"], outputs["x"], batch.get("lengths"))
            pl_module.log_scalars(*seen)
        step = trainer.global_step
        if step == self._step:  # an accumulated batch without an update
            return
        first, self._step = self._steps == 0 and step == 1, step
        self._steps += 1
        # The last window ends with the last update, before its checkpoint: one that is short of it goes on elsewhere.
        if first or step % self.config.every_steps == 0 or step == trainer.max_steps:
            self._flush(trainer, pl_module)

    def _flush(self, trainer: Trainer, module: Any) -> None:
        """One row of the log."""
        module.guard.check()
        window = module.scalars.flush(trainer.world_size)
        # After the read, so that work queued on a GPU is done and counts.
        speed = self._speed()
        if torch.cuda.is_available() and module.device.type == "cuda":
            speed["speed/memory_gib"] = torch.cuda.max_memory_allocated(module.device) / 2**30
        self.run_log.scalars(self._step, {**window, **speed, "samples": float(self.samples)})
        self._begin()

    def _speed(self) -> dict[str, float]:
        """Throughput of the window. Validation and checkpoints count for the estimate of the end, not for the rate."""
        total = time.perf_counter() - self._since
        spent = self.clock.take()
        training = max(total - spent.get(SAVE, 0.0) - spent.get(VALIDATE, 0.0), 1e-9)
        return {
            "speed/samples_per_second": self._window / training,
            "speed/data_wait": min(1.0, spent.get(FETCH, 0.0) / training),
            "speed/step_seconds": training / max(self._steps, 1),
            "speed/wall_seconds": total / max(self._steps, 1),
        }

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self.clock.start(VALIDATE)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.clock.stop(VALIDATE)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        self.run_log.close()

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        self.run_log.close()

    def state_dict(self) -> dict[str, Any]:
        return {"samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.samples = int(state_dict["samples"])
