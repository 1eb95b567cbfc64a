"""A study: several comparisons with the questions they answer, in one YAML file of configs/study.

Each part is what one `mmtok compare` would do, in a folder of its own below the study's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from datamodules.shardindex import write_atomically
from mmtok.compare.arms import Arm, arms_over
from mmtok.compare.plan import Comparison
from mmtok.resources import study_path
from mmtok.schema import ConfigError, parse

KEPT = "study.yaml"
"""In a study's folder, so that `mmtok report` knows its title and questions."""


@dataclass(frozen=True)
class Part:
    """One comparison of a study."""

    name: str
    """Of its folder."""
    asks: str
    """The question, for the report."""
    data: str
    """Name of the shard set it is about, given as `--data NAME=SHARDS`."""
    recipe: tuple[str, ...]
    """Layers."""
    over: tuple[str, ...] = ()
    """As `--over`; each alone, one after the other, not their combinations."""
    arms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Arms by name, each with its layers and settings, where `over` cannot say them."""
    settings: tuple[str, ...] = ()
    """`key=value` for every arm."""
    measures: tuple[str, ...] = ("reconstruction", "prior", "probe", "cost")
    """What is measured."""
    ask: dict[str, Any] = field(default_factory=dict)
    """What measures are asked, by `measure.field`."""


@dataclass(frozen=True)
class Study:
    """What a file of configs/study holds."""

    title: str
    """Of the report."""
    seeds: int
    """Runs of each arm."""
    parts: tuple[Part, ...]
    """In the order in which they are done."""

    @staticmethod
    def keep(name: str, folder: Path) -> None:
        """Leave the study's file in the folder of its comparisons."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / KEPT, study_path(name).read_bytes())

    @classmethod
    def read(cls, name: str) -> Study:
        """A study by its name or its file.

        Raises:
            ConfigError: there is none, or it holds a mistake.
        """
        path = study_path(name)
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is no YAML: {error}") from error
        if not isinstance(plain, Mapping):
            raise ConfigError(f"{path} is no study: it has no title, seeds and parts.")
        return parse(cls, plain, str(path))

    def comparisons(
        self, folder: Path, data: Mapping[str, str], settings: Sequence[str] = (), seeds: int | None = None
    ) -> tuple[list[tuple[Part, Comparison]], list[str]]:
        """(part, comparison) of the parts whose data are given, and a line for each other one.

        Args:
            folder: of the study.
            data: shard sets by their names in the study.
            settings: `key=value` for every part.
            seeds: instead of the study's.

        Raises:
            ConfigError: data that no part is about, none at all, or a mistake in a part.
        """
        wanted = list(dict.fromkeys(part.data for part in self.parts))
        if not data:
            given = " ".join(f"--data {name}=SHARDS" for name in wanted)
            raise ConfigError(f"--study wants the shards of its parts, some of them at least: {given}.")
        if unknown := set(data) - {part.data for part in self.parts}:
            known = ", ".join(sorted(wanted))
            raise ConfigError(f"--data {min(unknown)}=...: the study has no such set. Known: {known}.")
        found, left = [], []
        for part in self.parts:
            if part.data not in data:
                left.append(f"{part.name} is left out: it wants --data {part.data}=SHARDS")
                continue
            over = [arm for one in part.over for arm in arms_over([one])]
            arms = dict.fromkeys([*over, *(Arm(name, words) for name, words in part.arms.items())])
            words = [f"data.shards={data[part.data]}", *part.settings, *settings]
            found.append(
                (
                    part,
                    Comparison.make(
                        folder / part.name, part.recipe, words, tuple(arms), seeds=seeds or self.seeds,
                        measures=part.measures, options=part.ask,
                    ),
                )
            )  # fmt: skip
        return found, left
