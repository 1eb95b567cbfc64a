"""Grids of fixed validation samples: input, reconstruction and difference, for raw and averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from numpy.typing import NDArray
from torch import Tensor

from mmtok.tokenizers.base import Tokenizer
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig

GAP = 2
"""White pixels between two pictures."""


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
        rows = [self._x]
        tokenizers = [module.tokenizer] if module.ema is None else [module.tokenizer, module.ema]
        for tokenizer in tokenizers:
            reconstruction = reconstruct(trainer, tokenizer, self._x)
            # Half the difference around grey, so that its sign shows and nothing is cut off.
            rows += [reconstruction, (reconstruction - self._x) / 2]
        picture = grid(rows)
        self._save(picture, step)
        self.run_log.image(step, "media/reconstruction", picture)

    def _save(self, picture: NDArray[np.uint8], step: int) -> None:
        from PIL import Image

        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(self.folder / f"step-{step:08d}.png")
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
        parts.append(data.on_after_batch_transfer(batch, 0)["x"])
        if sum(map(len, parts)) >= count:
            break
    sized = [part for part in parts if part.shape[1:] == parts[0].shape[1:]]
    return torch.cat(sized)[:count] if sized else None


@torch.no_grad()
def reconstruct(trainer: Trainer, tokenizer: Tokenizer, x: Tensor) -> Tensor:
    """The reconstruction in evaluation mode and the run's precision; the tokenizer is left as it was."""
    training = tokenizer.training
    tokenizer.eval()
    try:
        with trainer.precision_plugin.val_step_context():
            return tokenizer(x).x.float()
    finally:
        tokenizer.train(training)


def grid(rows: list[Tensor]) -> NDArray[np.uint8]:
    """Rows of pictures (N, C, H, W) in [-1, 1] -> one picture (height, width, 3)."""
    count, _, height, width = rows[0].shape
    sheet = np.full((len(rows) * (height + GAP) - GAP, count * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        pixels = ((row.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(0, 2, 3, 1).numpy()
        for j, picture in enumerate(pixels):
            top, left = i * (height + GAP), j * (width + GAP)
            sheet[top : top + height, left : left + width] = picture  # grey pictures fill all three channels
    return sheet
