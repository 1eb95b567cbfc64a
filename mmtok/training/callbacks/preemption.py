"""Told to stop by a signal: agree on it, save, leave a sentinel for the batch script, and end with status 0.

SLURM sends SIGUSR1 before a time limit (`--signal`) and SIGTERM where it preempts, to any or all ranks, at any moment.
Lightning saves inside the handler, in the middle of a step, and requeues from the first rank, which kills slower ones
while they save (platform.md 2.14, 4). Here the handler sets a flag and nothing else.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer

from mmtok.schema import ConfigError
from mmtok.training.checkpoint import Checkpoints, validation_follows

SENTINEL = "REQUEUE"
"""In the run directory: the state is saved and the run wants to go on. Holds the step."""
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Preempted(Exception):
    """A signal asked the run to stop, and its state is saved.

    Attributes:
        step: updates done.
        cause: the signal's name.
    """

    def __init__(self, step: int, cause: str) -> None:
        super().__init__(f"stopped by {cause} at step {step:,}, saved. The same command continues.")
        self.step = step
        self.cause = cause


class StopSignals:
    """SIGUSR1 and SIGTERM as a flag, from `install` to `restore`."""

    def __init__(self) -> None:
        self.received = 0
        """The last signal's number; 0 while there is none."""
        self._before: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Take the signals over. Only the main thread can; elsewhere they keep their meaning."""
        if threading.current_thread() is not threading.main_thread() or self._before:
            return
        self.received, self._pid = 0, os.getpid()
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        """Give the signals back their meaning."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self._pid:  # forked loader workers inherit the handler
            self.received = number


class Preemption(Callback):
    """Stops all ranks after the same update, once any of them was signalled.

    Several ranks compare flags every `every` updates, by one number over a gloo group of their own: a collective of
    the training group would make the host wait for the device. The checkpoint is like any other that falls due, after
    the validation of the same update where there is one, so a run that goes on from it cannot tell the difference. It
    ends by an exception: `trainer.should_stop` would validate once more and end a window of the log early, and the run
    would not log what an uninterrupted one does.
    """

    def __init__(self, checkpoints: Checkpoints, run_dir: Path, every: int) -> None:
        self.checkpoints = checkpoints
        self.sentinel = run_dir / SENTINEL
        self.every = every
        self.signals = StopSignals()
        self._group: dist.ProcessGroup | None = None
        self._seen = -1
        self._cause = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.install()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen, self._cause = trainer.global_step, 0
        if trainer.is_global_zero:
            self.sentinel.unlink(missing_ok=True)  # of the stop before this start
        if trainer.world_size > 1:
            self._group = dist.new_group(backend="gloo")
            check_same_start(trainer.global_step, self._group)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        step = trainer.global_step
        if step == self._seen or step >= trainer.max_steps:  # an accumulated batch without an update, or the end anyway
            return
        self._seen = step
        self._cause = self._cause or self._agreed(step)
        if self._cause and not validation_follows(trainer):
            self._leave(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._cause and not trainer.sanity_checking:
            self._leave(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self.signals.restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.signals.restore()

    def _agreed(self, step: int) -> int:
        """The signal that any rank received, the same on every rank; 0 where there is none."""
        if self._group is None:
            return self.signals.received
        if step % self.every:
            return 0
        asked = torch.tensor(self.signals.received)
        dist.all_reduce(asked, dist.ReduceOp.MAX, group=self._group)
        return int(asked)

    def _leave(self, trainer: Trainer) -> None:
        self.checkpoints.save(trainer)
        if trainer.is_global_zero:
            draft = self.sentinel.with_suffix(".tmp")
            draft.write_text(f"{trainer.global_step}\n", encoding="utf-8")
            os.replace(draft, self.sentinel)
        # No rank leaves before the sentinel is there: the end of one may end the others (srun --kill-on-bad-exit).
        trainer.strategy.barrier()
        raise Preempted(trainer.global_step, signal.Signals(self._cause).name)


def check_same_start(step: int, group: dist.ProcessGroup) -> None:
    """Refuse to train where ranks read different checkpoints: one may fall back alone, by an error of its node's disk.

    Args:
        step: updates done, as this rank read it.
        group: of all ranks.

    Raises:
        ConfigError: on every rank, where they differ.
    """
    ends = torch.tensor([step, -step])
    dist.all_reduce(ends, dist.ReduceOp.MAX, group=group)
    last, first = int(ends[0]), -int(ends[1])
    if first != last:
        raise ConfigError(
            f"ranks begin at different updates, {first:,} and {last:,}: not every node could read the newest "
            "checkpoint. Look at the run directory from each node, then give the same command again."
        )
