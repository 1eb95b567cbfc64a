"""Ways for a training process to die at a named place, and a record of what it trained on. For `benchmarks/kills.py`.

They are put in from outside, in a process that exists to be killed: nothing of this is in the code that is tested.
"""

from __future__ import annotations

import io
import os
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from datamodules.audio import AudioModule
from datamodules.images import Images
from datamodules.module import ShardDataModule
from datamodules.text_bytes import TextBytes
from datamodules.vectors import Vectors
from mmtok.training.adversary import Adversary
from mmtok.training.checkpoint import Checkpoints
from mmtok.training.logs import MetricsFile
from mmtok.training.module import TokenizerModule

AHEAD = 10
"""Updates by which two loader workers may be ahead of training: four batches each, and what the loop holds."""


class Fault:
    """Kills this process once training has reached an update and then passes a place."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.step = -1

    def strike(self) -> None:
        """Die here, if it is time: nothing is flushed, no handler runs."""
        if self.step >= self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, name: str) -> None:
        """Pass the place whenever a function is called."""
        real = getattr(owner, name)

        def passing(*args: Any, **kwargs: Any) -> Any:
            self.strike()
            return real(*args, **kwargs)

        setattr(owner, name, passing)


def in_discriminator_step(fault: Fault) -> None:
    """Its weights have moved, LeCAM's averages have not."""
    fault.before(Adversary, "update")


def between_the_phases(fault: Fault) -> None:
    """Generator, codebook and averages have moved, the discriminator has not."""
    fault.before(TokenizerModule, "_update_adversary")


def in_backward(fault: Fault) -> None:
    """The gradients are half made."""
    fault.before(TokenizerModule, "manual_backward")


def in_checkpoint_write(fault: Fault) -> None:
    """Half of the file is written."""
    real = torch.save

    def half(content: Any, file: Any, **options: Any) -> None:
        if hasattr(file, "name") and fault.step >= fault.at:  # else what is sent to other ranks is pickled
            whole = io.BytesIO()
            real(content, whole)
            file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
            file.flush()
            fault.strike()
        real(content, file, **options)

    torch.save = half  # type: ignore[assignment]


def before_fsync(fault: Fault) -> None:
    """The file is written, and neither sealed nor on the disk."""
    fault.before(os, "fsync")


def before_rename(fault: Fault) -> None:
    """The new checkpoint is complete, and has not got its name."""
    _at_rename(fault, after=False)


def after_rename(fault: Fault) -> None:
    """The new checkpoint has its name, older ones are not cleared away."""
    _at_rename(fault, after=True)


def _at_rename(fault: Fault, after: bool) -> None:
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        mine = Path(target).name == "last.ckpt"
        if mine and not after:
            fault.strike()
        real(source, target)
        if mine:
            fault.strike()

    os.replace = replace  # type: ignore[assignment]


def in_validation(fault: Fault) -> None:
    """Some of its batches are measured."""
    fault.before(TokenizerModule, "validation_step")


def after_validation(fault: Fault) -> None:
    """Its row is logged, the checkpoint that waited for it is not written."""
    fault.before(Checkpoints, "on_validation_end")


def in_loader(fault: Fault) -> None:
    """While a sample is decoded: the worker dies, or the training process where it loads for itself."""
    trainer = os.getpid()

    def patch(module: type[ShardDataModule]) -> None:
        real = module.item

        def item(self: ShardDataModule, sample: Any, training: bool) -> Any:
            update = sample.slot * self.config.items_per_sample // self.config.batch_size
            if training and os.getpid() != trainer and update >= fault.at + AHEAD:
                os.kill(os.getpid(), signal.SIGKILL)
            if training and os.getpid() == trainer:
                fault.strike()
            return real(self, sample, training)

        module.item = item  # type: ignore[method-assign]

    for module in (Images, AudioModule, TextBytes, Vectors):
        patch(module)


def in_logger(fault: Fault) -> None:
    """Half a row of metrics.csv is written."""
    real = MetricsFile.write

    def write(self: MetricsFile, step: int, values: Any) -> None:
        if fault.step >= fault.at and self.path.exists():
            with self.path.open("ab") as file:
                file.write(f"{step},0.12".encode())
        fault.strike()
        real(self, step, values)

    MetricsFile.write = write  # type: ignore[method-assign]


POINTS: dict[str, Callable[[Fault], None]] = {
    "backward": in_backward,
    "between the phases": between_the_phases,
    "discriminator step": in_discriminator_step,
    "checkpoint write": in_checkpoint_write,
    "before fsync": before_fsync,
    "before rename": before_rename,
    "after rename": after_rename,
    "validation": in_validation,
    "after validation": after_validation,
    "loader": in_loader,
    "logger": in_logger,
}
"""Places to die at, by name."""
FIRST_RANK = ("checkpoint write", "before fsync", "before rename", "after rename", "logger")
"""Places that only the first rank comes by."""
ADVERSARIAL = ("between the phases", "discriminator step")
"""Places that a run without an adversary does not come by, or that mean nothing there."""


def checksum(tensors: list[torch.Tensor]) -> int:
    """Of all that a sample is, together."""
    return zlib.crc32(b"".join(tensor.numpy().tobytes() for tensor in tensors))


def record(log: Path, life: int, steps: Any, rank: int, fault: Fault) -> None:
    """Write down every batch as the module gets it, and tell the parent and the fault how far training is.

    Args:
        log: a line a batch: life, update, and key and checksum of each sample, all that was drawn for it included.
        life: number of this start.
        steps: shared integers, the update that each rank is in.
        rank: this one.
        fault: to be told.
    """
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def start(module: TokenizerModule, batch: Any, batch_idx: int) -> None:
        step = module.trainer.global_step
        parts = [batch[name] for name in ("x", "lengths", "teacher") if name in batch]
        sums = [f"{key}:{checksum(item):08x}" for key, *item in zip(batch["key"], *parts, strict=True)]
        os.write(file, f"{life} {step} {' '.join(sums)}\n".encode())
        steps[rank] = fault.step = step

    TokenizerModule.on_train_batch_start = start  # type: ignore[assignment]
