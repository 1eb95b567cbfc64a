"""Fixed validation samples beside their reconstructions, by raw and averaged weights: pictures, sounds and texts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from datamodules.stream import only_valid
from mmtok.evaluation.modalities import modality_of
from mmtok.evaluation.modality import Exhibit
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.sounds import write_wave
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig


class Samples(NamedTuple):
    """What is shown."""

    x: Tensor
    """(N, C, ...)."""
    lengths: Tensor | None
    """(N,) valid samples of each, where signals of different lengths are padded."""


class Media(Callback):
    """Draws at updates that are powers of two, when most happens, then every `log.media_every_steps`.

    The samples are the first of the first rank's share of the validation set, read once.
    """

    def __init__(self, config: LogConfig, log: RunLog, run_dir: Path) -> None:
        self.config = config
        self.run_log = log
        self.folder = run_dir / "media"
        self._samples: Samples | None = None
        self._shown = False
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
        spec = module.tokenizer.spec
        modality = modality_of(spec)
        if modality is None:
            return
        if self._samples is None:
            self._samples = first_samples(trainer, module, self.config.media_items)
        if self._samples is None:
            return
        tokenizers = {"": module.tokenizer, " (EMA)": module.ema}
        reconstructions = {
            label: reconstruct(trainer, tokenizer, self._samples)
            for label, tokenizer in tokenizers.items()
            if tokenizer is not None
        }
        x, lengths = self._samples
        exhibit = modality.exhibit(x, reconstructions, spec, lengths=lengths, title=f"step {step:,}")
        if exhibit is None:
            return
        self._save(exhibit, step)
        if exhibit.picture is not None:
            self.run_log.image(step, "media/reconstruction", np.asarray(exhibit.picture))
        if exhibit.text:
            self.run_log.text(step, "media/reconstruction", exhibit.text)
        for name, samples in (exhibit.sounds if self._shown else {**exhibit.inputs, **exhibit.sounds}).items():
            self.run_log.sound(step, f"media/{name}", samples, exhibit.rate)
        self._shown = True

    def _save(self, exhibit: Exhibit, step: int) -> None:
        """A picture or a text, and where there are sounds a folder of them; the oldest go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if exhibit.picture is not None:
            exhibit.picture.save(self.folder / f"step-{step:08d}.png")
        if exhibit.text:
            (self.folder / f"step-{step:08d}.txt").write_text(exhibit.text, encoding="utf-8")
        for folder, sounds in ((f"step-{step:08d}", exhibit.sounds), ("input", exhibit.inputs)):
            for name, samples in sounds.items():
                path = self.folder / folder / f"{name}.wav"
                path.parent.mkdir(exist_ok=True)
                write_wave([torch.from_numpy(samples.T)[None]], path, exhibit.rate)
        others = [path for path in sorted(self.folder.glob("step-*.*")) if not is_power_of_two(step_of(path))]
        for path in others[: -self.config.media_keep]:
            path.unlink()
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)


def is_due(step: int, every: int) -> bool:
    """Powers of two up to `every`, then its multiples; never where `every` is 0."""
    return bool(every) and (step % every == 0 or (step < every and is_power_of_two(step)))


def is_power_of_two(step: int) -> bool:
    """1, 2, 4, ..."""
    return step > 0 and step & (step - 1) == 0


def step_of(path: Path) -> int:
    """The update in a grid's file name."""
    return int(path.stem.removeprefix("step-"))


def first_samples(trainer: Trainer, module: Any, count: int) -> Samples | None:
    """The first validation samples, converted as a batch is; None without a validation set."""
    data: Any = getattr(trainer, "datamodule", None)
    loader = None if data is None else data.val_dataloader()
    if loader is None:
        return None
    parts: list[Mapping[str, Any]] = []
    for batch in loader:
        batch = data.transfer_batch_to_device(batch, module.device, 0)
        parts.append(only_valid(data.on_after_batch_transfer(batch, 0)))
        if sum(len(part["x"]) for part in parts) >= count:
            break
    sized = [part for part in parts if part["x"].shape[1:] == parts[0]["x"].shape[1:]]
    if not sized:
        return None
    lengths = torch.cat([part["lengths"] for part in sized])[:count] if "lengths" in sized[0] else None
    return Samples(torch.cat([part["x"] for part in sized])[:count], lengths)


@torch.no_grad()
def reconstruct(trainer: Trainer, tokenizer: Tokenizer, samples: Samples) -> Tensor:
    """The reconstruction in evaluation mode and the run's precision; the tokenizer is left as it was."""
    with evaluating(tokenizer), trainer.precision_plugin.val_step_context():
        return tokenizer(samples.x, samples.lengths).x.float()
