"""Checkpoints at update boundaries, written whole or not at all, and what is read back from them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO

from mmtok.loading import LAST, kept_checkpoints, step_of
from mmtok.seal import seal
from mmtok.training.lease import Lease, LeaseLost
from mmtok.training.settings import CheckpointConfig

_TOGETHER = 10
"""Updates between two looks at the clock by several ranks, each of which waits for the device."""


class NotSaved(OSError):
    """A checkpoint could not be written; says what stands and what to do."""


class SealedIO(TorchCheckpointIO):
    """Writes a checkpoint straight to its file, with a checksum, and waits for the disk.

    Lightning's own makes the file in memory, writes it into the system's temporary folder and moves it from there,
    which between two disks is a copy that can stop half way; it waits for no disk. A failure is kept here rather than
    raised: the other ranks already wait for this one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.failure = None
        try:
            with open(path, "wb+") as file:
                torch.save(checkpoint, file)
                seal(file)
        except OSError as error:
            self.failure = error
        except RuntimeError as error:  # how torch reports that its file could not be finished, whatever came before
            cause = error.__context__
            self.failure = cause if isinstance(cause, OSError) else OSError(5, str(error).splitlines()[0])


class Checkpoints(Callback):
    """Saves every so many updates or minutes; `last.ckpt` is always the newest, `step-N.ckpt` are kept beside it.

    Lightning's own callback tests the step only where a batch ends and never saves by time in manual optimisation.
    Where a validation falls on the same update, it comes first: a run resumed from a checkpoint saved before its
    validation would skip it.

    Args:
        config: when, and how many.
        folder: `checkpoints/` of the run directory, whose `metrics.csv` goes to the disk first.
        lease: of the run directory, on the first rank; looked at before anything is written.
    """

    def __init__(self, config: CheckpointConfig, folder: Path, lease: Lease | None = None) -> None:
        self.config = config
        self.folder = folder
        self.lease = lease
        self.io = SealedIO()
        """To be given to the trainer as a plugin."""
        self._due = False
        self._seen = -1
        self._saved = -1
        self._clock = time.monotonic()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = self._saved = trainer.global_step
        self._clock = time.monotonic()
        if trainer.is_global_zero:
            remove_partial(self.folder)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if step == self._seen:  # an accumulated batch without an update
            return
        self._seen = step
        if self.lease is not None and self.lease.lost:
            self.lease.check()
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
        """Write `last.ckpt` and, where more are kept, `step-N.ckpt`; each appears whole or not at all.

        All ranks call this together, and all of them raise what went wrong on the first. Where this update is saved
        already there is nothing to do.

        Raises:
            NotSaved: it could not be written. What was saved before stands.
        """
        if self._saved == trainer.global_step:
            return
        self._due = False
        self._clock = time.monotonic()
        partial = self.folder / f"{LAST}.partial"
        self._on_first_rank(trainer, self._prepare)
        trainer.save_checkpoint(partial)
        self._on_first_rank(trainer, lambda: self._publish(partial, trainer.global_step))
        self._saved = trainer.global_step

    def _on_first_rank(self, trainer: Trainer, act: Callable[[], None]) -> None:
        """Act on files; what goes wrong is raised on all ranks, which would wait for the first one otherwise."""
        failure: tuple[int | None, str, str] | None = None
        if trainer.is_global_zero:
            try:
                act()
            except LeaseLost as error:
                failure = (error.errno, str(error.strerror), str(error.filename))
            except OSError as error:
                said = (
                    f"the checkpoint of step {trainer.global_step} could not be written ({error.strerror}); the one "
                    "before it, if any, stands. Make room and give the same command again"
                )
                failure = (error.errno, said, str(self.folder))
        failure = trainer.strategy.broadcast(failure)
        if failure is not None:
            raise NotSaved(*failure)

    def _prepare(self) -> None:
        if self.lease is not None:
            self.lease.check()
        self.folder.mkdir(parents=True, exist_ok=True)

    def _publish(self, partial: Path, step: int) -> None:
        if self.io.failure is not None:
            partial.unlink(missing_ok=True)
            raise self.io.failure
        # The log goes first: a checkpoint on the disk vouches for the rows up to its step.
        _sync(self.folder.parent / "metrics.csv")
        if self.config.keep:
            kept = self.folder / f"step-{step}.ckpt"
            kept.unlink(missing_ok=True)
            os.link(partial, kept)  # a second name for the same bytes
        os.replace(partial, self.folder / LAST)
        _sync(self.folder)
        # Those of later updates are of a branch that this run went back from; it writes over them as it comes by.
        before = [path for path in kept_checkpoints(self.folder) if step_of(path) <= step]
        for old in before[: -self.config.keep or None]:
            old.unlink()


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation comes between this batch's end and the next batch (see `callbacks/schedule.py`)."""
    return bool(trainer.fit_loop.epoch_loop._should_check_val_fx(None))  # type: ignore[arg-type]


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    if not path.exists():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Clear what a killed save left behind."""
    for path in folder.glob("*.partial"):
        path.unlink(missing_ok=True)
