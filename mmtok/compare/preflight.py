"""What would make every cell of a comparison fail, found before one is started."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmtok.compare.plan import Comparison
from mmtok.schema import ConfigError


def check(comparison: Comparison, *, data: bool = True) -> None:
    """Look at what the cells that lack something want; nothing is written.

    Args:
        comparison: planned.
        data: whether the shards are to be seen from here, as they are not of a cluster's containers.

    Raises:
        ConfigError: the folder is another recipe's, data are missing or of another kind, or an adapter is not there.
        ValueError: shards that cannot be read.
    """
    comparison.refuse_another()
    todo = set(comparison.todo())
    cells = [(place, cell) for place, cell in comparison.cells if place in todo]
    for path in dict.fromkeys(cell.arm.path for _, cell in cells if cell.arm.path):
        (check_adapter if ":" in path else check_standing)(path)
    if data:
        from datamodules.base import datamodules

        seen = []
        for place, cell in cells:
            config = cell.config(place).data
            if config not in seen:
                seen.append(config)
                module = datamodules.build(config)
                module.check_content([*module.training_sets(), *module.validation_sets()])


def check_standing(path: str) -> None:
    """Whether a path is a run with a checkpoint, a checkpoint, a bundle or an import; it is not loaded.

    Raises:
        ConfigError: it is none of them.
    """
    from mmtok.export.folder import is_model

    place = Path(path)
    if not (is_model(place) or place.is_file() or any((place / "checkpoints").glob("*.ckpt"))):
        raise ConfigError(f"--with {path}: it is no run with a checkpoint, no bundle and no import.")


def check_adapter(text: str) -> None:
    """Whether there is a `package.module:function`; it is not called, which may take a model's time and memory.

    Raises:
        ConfigError: there is none.
    """
    module, _, name = text.partition(":")
    remedy = "Write package.module:function, with its folder on PYTHONPATH."
    with _as_a_cell_looks():
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"--with {text}: {error}. {remedy}") from error
    if not callable(found):
        raise ConfigError(f"--with {text}: {name} is a {type(found).__name__}, and no function. {remedy}")


@contextmanager
def _as_a_cell_looks() -> Iterator[None]:
    """The working directory among the places of modules, as `python -m`, which does the cells, has it."""
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)
