"""The rows of one evaluation, an arm and a seed each: kept in a file as they come, so that a stopped one goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmtok.compare.files import write_json
from mmtok.compare.statistics import Mean, mean_of
from mmtok.schema import read_json


class Ledger:
    """Figures by arm and seed.

    Attributes:
        rows: {"arm", "seed", "figures": {name: number}, ...} each, in the order in which they were measured.
        facts: what a reader needs to know beside them.
    """

    def __init__(self, path: Path, task: str, asked: Mapping[str, Any]) -> None:
        """Begin, or go on with what stands.

        Args:
            path: of the file.
            task: what is measured.
            asked: everything that would change a figure, but for the seeds.

        Raises:
            ValueError: the file holds figures of something else.
        """
        self.path, self.task = path, task
        self.asked: dict[str, Any] = json.loads(json.dumps(asked))
        self.facts: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            held = read_json(path)
            other = held.get("asked", {})
            names = sorted(name for name in {*other, *self.asked} if other.get(name) != self.asked.get(name))
            if names or held.get("task") != task:
                said = ", ".join(f"{name}={other.get(name)!r}" for name in names) or f"task={held.get('task')!r}"
                raise ValueError(
                    f"{path} holds figures that were asked otherwise ({said}). Name another file (--out), or remove it."
                )
            if not isinstance(rows := held.get("rows"), list):
                raise ValueError(f"{path} is damaged: it has no rows. Name another file (--out), or remove it.")
            self.rows = rows

    def find(self, arm: str, seed: int) -> dict[str, Any] | None:
        """A row that stands."""
        return next((row for row in self.rows if row["arm"] == arm and row["seed"] == seed), None)

    def add(self, row: Mapping[str, Any]) -> None:
        """One more row, written at once."""
        self.rows.append(dict(row))
        self.write()

    def write(self) -> None:
        """Write the file as all stands."""
        write_json(self.path, self.to_dict())

    def means(self) -> dict[str, dict[str, Mean]]:
        """Arm -> figure -> mean over its seeds."""
        found: dict[str, dict[str, list[float]]] = {}
        for row in self.rows:
            for name, value in row["figures"].items():
                found.setdefault(row["arm"], {}).setdefault(name, []).append(value)
        return {arm: {name: mean_of(values) for name, values in own.items()} for arm, own in found.items()}

    def to_dict(self) -> dict[str, Any]:
        """As the file holds it."""
        return {
            "task": self.task,
            "asked": self.asked,
            "facts": self.facts,
            "confidence": "95 % intervals of the mean over seeds, by Student's t",
            "rows": self.rows,
            "summary": {
                arm: {name: asdict(mean) for name, mean in own.items()} for arm, own in self.means().items()
            },
        }  # fmt: skip


def fill(
    ledger: Ledger,
    arms: Iterable[str],
    seeds: int,
    measure: Callable[[str, int, float | None], dict[str, Any]],
    *,
    alike: Collection[str] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Measure what the ledger lacks, seed by seed.

    Args:
        ledger: gets the rows.
        arms: in order.
        seeds: how many, from 0.
        measure: (arm, seed, rate that the arm's first seed chose, None for that one) -> figures and facts of a row.
        alike: arms that no seed changes, which have the first alone.
        say: gets a line a row.
    """
    for seed in range(seeds):
        for arm in arms:
            if ledger.find(arm, seed) is not None or (seed and arm in alike):
                continue
            first = ledger.find(arm, 0) or {}
            row = {"arm": arm, "seed": seed, **measure(arm, seed, first.get("rate"))}
            ledger.add(row)
            say(f"{arm}, seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in row["figures"].items()))


def table(ledger: Ledger, columns: Mapping[str, str], arms: Sequence[str]) -> str:
    """A Markdown table, a row an arm.

    Args:
        ledger: what was measured.
        columns: figure -> how a number of it is written.
        arms: in order; those without rows are left out.
    """
    means = ledger.means()
    names = [name for name in columns if any(name in own for own in means.values())]
    rows = [["", *names]]
    for arm in arms:
        if arm in means:
            rows.append([arm, *(_cell(means[arm].get(name), columns[name]) for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| "
        + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _cell(mean: Mean | None, form: str) -> str:
    """Figures that are the same of every seed have no interval to show."""
    if mean is None:
        return "-"
    shown = form.format(mean.mean)
    return f"{shown} ± {form.format(mean.half)}" if mean.half else shown
