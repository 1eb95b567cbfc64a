"""A comparison: its cells, where they are, and what of it is done."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtok.compare.arms import Arm
from mmtok.compare.cells import CELL, Cell, missing
from mmtok.compare.files import write_json
from mmtok.compare.measures import options_of
from mmtok.schema import ConfigError

PLAN = "compare.json"
DEFAULT = ("reconstruction", "prior", "probe", "cost")
"""Measures of every kind of tokenizer."""


@dataclass(frozen=True)
class Comparison:
    """Arms over seeds on one recipe."""

    folder: Path
    layers: tuple[str, ...]
    settings: tuple[str, ...]
    cells: tuple[tuple[Path, Cell], ...]
    """Folder and cell, all arms of the first seed first: a table that is not finished compares what it can."""

    @classmethod
    def make(
        cls,
        folder: Path,
        layers: Sequence[str],
        settings: Sequence[str],
        arms: Sequence[Arm],
        standing: Sequence[Arm] = (),
        *,
        seeds: int = 1,
        measures: Sequence[str] = DEFAULT,
        options: Mapping[str, Any] | None = None,
    ) -> Comparison:
        """Resolve every cell; nothing is written.

        Args:
            folder: of the comparison.
            layers: the recipe.
            settings: for every arm.
            arms: that are trained.
            standing: tokenizers that stand already; several of one name are its seeds.
            seeds: how many of each arm.
            measures: names of `mmtok.compare.measures`.
            options: what they are asked, by `measure.field`.

        Raises:
            ConfigError: a mistake in any of them.
        """
        if seeds < 1:
            raise ConfigError(f"--seeds={seeds} must be 1 or more.")
        options = dict(options or {})
        for name in measures:
            options_of(name, options)
        repeated = [arm for seed in range(seeds) for arm in arms]
        numbers = [seed for seed in range(seeds) for _ in arms]
        chosen = list(zip(repeated, numbers, strict=True)) + _numbered(standing)
        if not chosen:
            raise ConfigError("there is nothing to compare. Give --over quantizer=10bit/*, or --with NAME=PATH.")
        if both := {arm.name for arm in arms} & {arm.name for arm in standing}:
            raise ConfigError(f"--over and --with both have an arm '{min(both)}'. Give one another name.")
        cells = []
        for arm, seed in chosen:
            place = folder / "cells" / arm.name / f"seed-{seed}"
            cell = Cell(arm, seed, tuple(layers), tuple(settings), tuple(measures), options)
            cell.config(place)
            cells.append((place, cell))
        return cls(folder, tuple(layers), tuple(settings), tuple(cells))

    def refuse_another(self) -> None:
        """Whether the folder is free, or holds cells of this recipe.

        Raises:
            ConfigError: it holds a comparison on another recipe, or with other settings, or a cell that is another.
        """
        for place in (self.folder / one for one in _listed(self.folder)):
            there = Cell.read(place)
            for what, old, new in (("recipe", there.layers, self.layers), ("settings", there.settings, self.settings)):
                if old != new:
                    apart = " ".join(sorted({*old} ^ {*new})) or "their order"
                    raise ConfigError(
                        f"{self.folder} was made with another {what} (apart: {apart}), and a comparison has one for "
                        "all arms. Compare into another folder, or delete it."
                    )
        for place, cell in self.cells:
            cell.refuse_another(place)

    def save(self) -> None:
        """Write the cells' plans, so that each can be done alone.

        Raises:
            ConfigError: a cell's folder was made with something else.
        """
        for place, cell in self.cells:
            cell.save(place)
        cells = [str(place.relative_to(self.folder)) for place, _ in self.cells]
        known = _listed(self.folder)
        write_json(self.folder / PLAN, {"cells": [*known, *(one for one in cells if one not in known)]})

    @classmethod
    def open(cls, folder: Path) -> Comparison:
        """A comparison that was made before, with every cell of it.

        Raises:
            ConfigError: there is none.
        """
        if not (folder / PLAN).is_file():
            raise ConfigError(f"{folder} is no folder of a comparison: it has no {PLAN}.")
        cells = tuple((folder / one, Cell.read(folder / one)) for one in _listed(folder))
        first = cells[0][1]
        return cls(folder, first.layers, first.settings, cells)

    def todo(self) -> list[Path]:
        """Folders of cells that lack something, or were asked something else since."""
        return [place for place, cell in self.cells if missing(place, cell)]


def _listed(folder: Path) -> list[str]:
    path = folder / PLAN
    try:
        return [one for one in json.loads(path.read_text())["cells"] if (folder / one / CELL).is_file()]
    except FileNotFoundError:
        return []
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Delete it and give the whole command again.") from error


def _numbered(standing: Sequence[Arm]) -> list[tuple[Arm, int]]:
    """(arm, seed) of tokenizers that stand, a path a seed: the same weights measured twice are no two samples."""
    return [
        (arm, seed)
        for name in dict.fromkeys(arm.name for arm in standing)
        for seed, arm in enumerate(arm for arm in standing if arm.name == name)
    ]
