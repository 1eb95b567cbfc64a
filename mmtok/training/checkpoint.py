"""Checkpoints at update boundaries, written whole or not at all, and what is read back from them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from mmtok.loading import LAST, kept_checkpoints
from mmtok.training.settings import CheckpointConfig

_TOGETHER = 10
"""Updates between two looks at the clock by several ranks, each of which waits for the device."""


class Checkpoints(Callback):
    """Saves every so many updates or minutes; `last.ckpt` is always the newest, `step-N.ckpt` are kept beside it.

    Lightning's own callback tests the step only where a batch ends and never saves by time in manual optimisation.
    Where a validation falls on the same update, it comes first: a run resumed from a checkpoint saved before its
    validation would skip it.
    """

    def __init__(self, config: CheckpointConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self._due = False
        self._seen = -1
        self._clock = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = trainer.global_step
        self._clock = time.monotonic()
        remove_partial(self.folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if step == self._seen:  # an accumulated batch without an update
            return
        self._seen = step
        if self._is_due(trainer, step):
            self._due = True
        if self._due and not validation_follows(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._due and not trainer.sanity_checking:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer)

    def _is_due(self, trainer: Trainer, step: int) -> bool:
        if self.config.every_steps and step % self.config.every_steps == 0:
            return True
        minutes = self.config.every_minutes
        if not minutes or (trainer.world_size > 1 and step % _TOGETHER):
            return False
        # Minutes differ between machines: rank 0's clock decides for all, since saving is a collective.
        return bool(trainer.strategy.broadcast(time.monotonic() - self._clock > 60 * minutes))

    def save(self, trainer: Trainer) -> None:
        """Write `last.ckpt` and, where more are kept, `step-N.ckpt`; each appears whole or not at all."""
        self._due = False
        self._clock = time.monotonic()
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{LAST}.partial"
        try:
            trainer.save_checkpoint(partial)
            if trainer.is_global_zero:
                self._publish(partial, trainer.global_step)
        except OSError as error:
            partial.unlink(missing_ok=True)
            said = (
                f"the checkpoint could not be written ({error.strerror}); the one before it, if any, stands. Make room"
            )
            message = f"{said} and give the same command again"
            raise OSError(error.errno, message, str(self.folder)) from error
        trainer.strategy.barrier()

    def _publish(self, partial: Path, step: int) -> None:
        if self.config.keep:
            kept = self.folder / f"step-{step}.ckpt"
            kept.unlink(missing_ok=True)
            os.link(partial, kept)  # a second name for the same bytes
        os.replace(partial, self.folder / LAST)
        for old in kept_checkpoints(self.folder)[: -self.config.keep or None]:
            old.unlink()


def validation_follows(trainer: Trainer) -> bool:
    """Whether Lightning validates between this batch's end and the next batch."""
    every = trainer.val_check_batch
    done = trainer.fit_loop.epoch_loop.batch_idx + 1
    return isinstance(every, int) and trainer.enable_validation and done % every == 0


def remove_partial(folder: Path) -> None:
    """Clear what a killed save left behind."""
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)
