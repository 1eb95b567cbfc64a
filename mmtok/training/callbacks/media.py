"""Grids of fixed validation samples: input, reconstruction and difference, for raw and averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from datamodules.stream import only_valid
from mmtok.evaluation.pictures import contact_sheet
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.pixels import to_uint8
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig

if TYPE_CHECKING:
    from PIL.Image import Image


class Media(Callback):
    """Draws at updates that are powers of two, when most happens, then every `log.media_every_steps`.

    The samples are the first of the first rank's share of the validation set, read once.
    """

    def __init__(self, config: LogConfig, log: RunLog, run_dir: Path) -> None:
        self.config = config
        self.run_log = log
        self.folder = run_dir / "media"
        self._x: Tensor | None = None
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        step = trainer.global_step
        if step == self._step or not trainer.is_global_zero:
            return
        self._step = step
        if is_due(step, self.config.media_every_steps) or (self.config.media_every_steps and step == trainer.max_steps):
            self.draw(trainer, pl_module, step)

    def draw(self, trainer: Trainer, module: Any, step: int) -> None:
        """One grid, as a file and to the loggers."""
        if self._x is None:
            self._x = first_samples(trainer, module, self.config.media_items)
        if self._x is None or self._x.ndim != 4 or self._x.shape[1] not in (1, 3):
            return
        x = to_uint8(self._x)
        rows = {"input": x}
        for label, tokenizer in {"": module.tokenizer, " (EMA)": module.ema}.items():
            if tokenizer is not None:
                y = to_uint8(reconstruct(trainer, tokenizer, self._x))
                rows[f"reconstruction{label}"] = y
                rows[f"difference{label}"] = ((y.int() - x.int()) / 2 + 127.5).round().to(torch.uint8)
        picture = contact_sheet(rows, title=f"step {step:,}; difference around grey, halved")
        self._save(picture, step)
        self.run_log.image(step, "media/reconstruction", np.asarray(picture))

    def _save(self, picture: Image, step: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        picture.save(self.folder / f"step-{step:08d}.png")
        others = [path for path in sorted(self.folder.glob("step-*.png")) if not is_power_of_two(step_of(path))]
        for path in others[: -self.config.media_keep]:
            path.unlink()


def is_due(step: int, every: int) -> bool:
    """Powers of two up to `every`, then its multiples; never where `every` is 0."""
    return bool(every) and (step % every == 0 or (step < every and is_power_of_two(step)))


def is_power_of_two(step: int) -> bool:
    """1, 2, 4, ..."""
    return step > 0 and step & (step - 1) == 0


def step_of(path: Path) -> int:
    """The update in a grid's file name."""
    return int(path.stem.removeprefix("step-"))


def first_samples(trainer: Trainer, module: Any, count: int) -> Tensor | None:
    """x of the first validation samples, converted as a batch is; None without a validation set."""
    data: Any = getattr(trainer, "datamodule", None)
    loader = None if data is None else data.val_dataloader()
    if loader is None:
        return None
    parts: list[Tensor] = []
    for batch in loader:
        batch = data.transfer_batch_to_device(batch, module.device, 0)
        parts.append(only_valid(data.on_after_batch_transfer(batch, 0))["x"])
        if sum(map(len, parts)) >= count:
            break
    sized = [part for part in parts if part.shape[1:] == parts[0].shape[1:]]
    return torch.cat(sized)[:count] if sized else None


@torch.no_grad()
def reconstruct(trainer: Trainer, tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """The reconstruction in evaluation mode and the run's precision; the tokenizer is left as it was."""
    with evaluating(tokenizer), trainer.precision_plugin.val_step_context():
        return tokenizer(x).x.float()
