"""A cell: one arm with one seed. Its folder is a run directory with `cell.json`, and `measures/` once it was trained.

`run_cell` does what a cell still lacks, so that a cell that was killed is given the same command again.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtok.compare.arms import Arm
from mmtok.compare.files import read_measured, write_json
from mmtok.config import RunConfig, load_config
from mmtok.schema import ConfigError

CELL = "cell.json"
MEASURES = "measures"


@dataclass(frozen=True)
class Cell:
    """What is trained and measured in one folder."""

    arm: Arm
    seed: int
    layers: tuple[str, ...]
    """The recipe."""
    settings: tuple[str, ...]
    """`key=value` for every arm, before the arm's own."""
    measures: tuple[str, ...]
    """Names of `mmtok.compare.measures`."""
    options: Mapping[str, Any]
    """Of the measures, by `measure.field`."""

    def config(self, folder: Path) -> RunConfig:
        """The resolved run.

        Raises:
            ConfigError: a mistake in the recipe or a setting.
        """
        layers = [word for word in self.arm.words if "=" not in word]
        own = [word for word in self.arm.words if "=" in word]
        words = [*self.settings, *own, f"seed={self.seed}", f"run_dir={folder}"]
        return load_config([*self.layers, *layers], words).config

    def save(self, folder: Path) -> None:
        """Write `cell.json`; what was asked of the cell before stays asked.

        Raises:
            ConfigError: another cell is there.
        """
        plain = dataclasses.asdict(self)
        if before := self.refuse_another(folder):
            plain["measures"] = list(dict.fromkeys([*before.measures, *self.measures]))
            plain["options"] = {**before.options, **self.options}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CELL).write_text(json.dumps(plain, indent=1) + "\n")

    def refuse_another(self, folder: Path) -> Cell | None:
        """The cell that is there already, None where none is.

        Raises:
            ConfigError: it is another, or damaged.
        """
        if not (folder / CELL).is_file():
            return None
        before = Cell.read(folder)
        # Measures may be added, and what they are asked changes no training.
        names = ("arm", "seed", "layers", "settings")
        if changed := [name for name in names if getattr(before, name) != getattr(self, name)]:
            raise ConfigError(
                f"{folder} was made with another {', '.join(changed)}. Compare into another folder, or delete it."
            )
        return before

    @classmethod
    def read(cls, folder: Path) -> Cell:
        """The cell of a folder.

        Raises:
            ConfigError: there is none.
        """
        try:
            plain = json.loads((folder / CELL).read_text())
            arm = Arm(plain["arm"]["name"], tuple(plain["arm"]["words"]), plain["arm"]["path"])
            tuples = {name: tuple(plain[name]) for name in ("layers", "settings", "measures")}
            return cls(arm, int(plain["seed"]), options=plain["options"], **tuples)
        except OSError as error:
            raise ConfigError(f"{folder} is no cell of a comparison. Give the whole command again.") from error
        except (KeyError, TypeError, ValueError) as error:
            remedy = "Remove it and give the whole command again."
            raise ConfigError(f"{folder / CELL} is damaged ({error}). {remedy}") from error


def missing(folder: Path, cell: Cell) -> list[str]:
    """Measures of a cell that do not stand yet, or were asked something else."""
    from mmtok.compare.measures import options_of

    def stands(name: str) -> bool:
        path = folder / MEASURES / f"{name}.json"
        return path.is_file() and read_measured(path)["options"] == options_of(name, cell.options)

    return [name for name in cell.measures if not stands(name)]


def run_cell(folder: Path, say: Callable[[str], None] = print) -> None:
    """Train and measure what is not there yet.

    Raises:
        ConfigError: a mistake in the cell's settings, or in what it is measured on.
    """
    from mmtok.compare.measures import MEASURES as TABLE
    from mmtok.compare.measures import options_of
    from mmtok.compare.subject import Subject

    cell = Cell.read(folder)
    todo = missing(folder, cell)
    if not todo:
        return
    config = cell.config(folder)
    if not cell.arm.path:
        _train(config, folder, say)
    subject = Subject.of(cell, config, folder)
    for name in todo:
        began = time.perf_counter()
        options = options_of(name, cell.options)
        found = TABLE[name].measure(subject, options)
        notes = {"notes": list(subject.notes)} if subject.notes else {}
        write_json(folder / MEASURES / f"{name}.json", {"options": options, **notes, **found})
        say(f"{cell.arm.name}, seed {cell.seed}: {name} in {time.perf_counter() - began:.0f} s")


def _train(config: RunConfig, folder: Path, say: Callable[[str], None]) -> None:
    from mmtok.loading import open_checkpoint
    from mmtok.training.run import train

    kept = folder / "checkpoints" / "last.ckpt"
    if kept.exists() and open_checkpoint(folder)[1]["global_step"] >= config.trainer.max_steps:
        return
    train(config, say=say)
    record = folder / "memory.json"
    before = json.loads(record.read_text())["peak_bytes"] if record.is_file() else 0  # of a part before a stop
    write_json(record, {"peak_bytes": max(before, _peak_bytes())})


def _peak_bytes() -> int:
    """Of this process, which trained and did nothing else yet: a GPU's memory where there is one, else its own."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
