"""When a run validates: every so many updates, and after the last one."""

from __future__ import annotations

from typing import Any

from lightning import Callback, LightningModule, Trainer


class ValidationSchedule(Callback):
    """Decides from the update alone, in place of Lightning, which has no setting for it.

    Lightning counts batches and has several rules for a run that was restored. By those an update whose checkpoint was
    written before its validation loses it, the last update has one only where the interval divides, and whatever stops
    a run early adds one that an uninterrupted run does not have.

    Args:
        every: updates between two validations; 0 validates after the last update alone.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._seen = -1
        self._updated = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen, self._updated = trainer.global_step, False
        loop = trainer.fit_loop.epoch_loop
        assert hasattr(loop, "_should_check_val_fx"), "Lightning has changed: look for what decides on validation"
        loop._should_check_val_fx = lambda *_: self.due(trainer)  # type: ignore[method-assign]

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._updated = trainer.global_step != self._seen  # not by an accumulated batch
        self._seen = trainer.global_step

    def due(self, trainer: Trainer) -> bool:
        """Whether a validation follows the batch that has just been trained on."""
        step = trainer.global_step
        at = step == trainer.max_steps or bool(self.every and step % self.every == 0)
        return self._updated and at and trainer.enable_validation
