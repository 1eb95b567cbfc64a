"""Results of a comparison: every figure of every cell, means with intervals, and places the intervals allow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmtok.compare.axes import GROUPS, axis_of, columns_of
from mmtok.compare.cells import MEASURES as FOLDER
from mmtok.compare.files import read_measured, write_json
from mmtok.compare.jobs import LOG, last_words
from mmtok.compare.plan import Comparison
from mmtok.compare.statistics import Mean, mean_of, ranks
from mmtok.report.numbers import number
from mmtok.schema import ConfigError

RESULTS, TABLES = "results.json", "results.md"


@dataclass(frozen=True)
class Results:
    """What stands of a comparison."""

    rows: tuple[dict[str, Any], ...]
    """A cell each: arm, seed, words, folder, figures, usage, absent."""
    missing: tuple[str, ...]
    """Cells of which nothing or not everything is measured."""
    means: dict[str, dict[str, Mean]]
    """Figure -> arm -> mean over seeds."""
    places: dict[str, dict[str, tuple[int, int]]]
    """Figure -> arm -> the places that 95 % intervals of differences allow; figures of which one side is better."""
    codecs: tuple[dict[str, Any], ...] = ()
    """Classical codecs at the arms' rates."""
    notes: tuple[str, ...] = ()
    """What a reader of the tables must know."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(dict.fromkeys(row["arm"] for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """As `results.json` holds it."""
        return {
            "axes": {name: axis._asdict() for name in self.means if (axis := axis_of(name))},
            "confidence": "95 % intervals of the mean by Student's t; places by Welch's interval of each difference, "
            "not corrected for the number of comparisons",
            "rows": list(self.rows),
            "missing": list(self.missing),
            "summary": {
                figure: {
                    arm: asdict(one) | {"place": list(self.places[figure][arm]) if figure in self.places else None}
                    for arm, one in arms.items()
                }
                for figure, arms in self.means.items()
            },
            "codecs": list(self.codecs),
            "notes": list(self.notes),
        }


def gather(comparison: Comparison) -> Results:
    """Read what stands."""
    rows, absent = [], []
    for place, cell in comparison.cells:
        row, lacking = _row(comparison.folder, place, cell)
        if row["figures"]:
            rows.append(row)
        if lacking:
            said = f": {last_words(place)}" if (place / LOG).is_file() else ""
            absent.append(f"{cell.arm.name}, seed {cell.seed}: {', '.join(lacking)}{said}")
    figures: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for figure, value in row["figures"].items():
            figures.setdefault(figure, {}).setdefault(row["arm"], []).append(value)
    means = {figure: {arm: mean_of(values) for arm, values in arms.items()} for figure, arms in figures.items()}
    places = {
        figure: ranks(arms, axis.higher)
        for figure, arms in figures.items()
        if (axis := axis_of(figure)) and axis.higher is not None
    }
    codecs = _read_codecs(comparison.folder / "codecs.json")
    notes = dict.fromkeys([*(f"{row['arm']}: {note}" for row in rows for note in row["notes"]), *_unreached(codecs)])
    return Results(tuple(rows), tuple(absent), means, places, tuple(codecs), tuple(notes))


def _read_codecs(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["rows"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Remove it: --codecs measures again.") from error


def _unreached(codecs: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line on codecs whose least rate is above an arm's."""
    rows = [row for row in codecs if not row.get("reached", True)]
    if not rows:
        return []
    names = ", ".join(dict.fromkeys(row["codec"] for row in rows))
    return [
        f"{names}: the least rate is above that of some arms (marked 'least' in the table of codecs; headers alone are "
        "more than a small picture's tokens), so these figures are of more bits than the arms have."
    ]


def _row(home: Path, place: Path, cell: Any) -> tuple[dict[str, Any], list[str]]:
    from mmtok.compare.measures import options_of

    figures: dict[str, float] = {}
    usage: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    lacking, absent = [], {}
    for name in cell.measures:
        path = place / FOLDER / f"{name}.json"
        if not path.is_file():
            lacking.append(name)
            continue
        held = read_measured(path)
        if held["options"] != options_of(name, cell.options):  # asked anew since: no figure beside the others'
            lacking.append(name)
            continue
        figures |= held["figures"]
        usage = held.get("report", {}).get("usage", usage)
        notes |= dict.fromkeys(held.get("notes", ()))
        if "absent" in held:
            absent[name] = held["absent"]
    row = {
        "arm": cell.arm.name, "seed": cell.seed, "words": list(cell.arm.words), "path": cell.arm.path,
        "folder": str(place.relative_to(home)), "figures": figures, "usage": usage, "absent": absent,
        "notes": list(notes),
    }  # fmt: skip
    return row, lacking


def write(comparison: Comparison, results: Results) -> Path:
    """`results.json` and `results.md`; returns the latter."""
    write_json(comparison.folder / RESULTS, results.to_dict())
    target = comparison.folder / TABLES
    target.write_text(tables(results) + "\n", encoding="utf-8")
    return target


def tables(results: Results) -> str:
    """Markdown, one table a group of figures; what the intervals do not separate shares its places."""
    parts = []
    for title in GROUPS:
        columns = columns_of(title, results.means)
        if columns:
            parts.append(f"**{title}**\n\n{_table(results, columns)}")
    if results.codecs:
        parts.append(f"**Codecs**\n\n{_codecs(results.codecs)}")
    if results.notes:
        parts.append("**Notes**\n\n" + "\n".join(f"- {line}" for line in results.notes))
    if results.missing:
        parts.append("**Missing**\n\n" + "\n".join(f"- {line}" for line in results.missing))
    return "\n\n".join(parts)


def _table(results: Results, columns: Iterable[str]) -> str:
    columns = list(columns)
    head = ["arm", *(f"{name} {_arrow(name)}".strip() for name in columns)]
    rows = [[arm, *(_cell(results, name, arm) for name in columns)] for arm in results.arms]
    return markdown([head, *rows])


def _arrow(name: str) -> str:
    axis = axis_of(name)
    return {True: "↑", False: "↓", None: ""}[axis.higher if axis else None]


def _cell(results: Results, figure: str, arm: str) -> str:
    one = results.means[figure].get(arm)
    if one is None:
        return "-"
    place = results.places.get(figure, {}).get(arm)
    if place is None or one.half is None:
        return str(one)
    return f"{one} ({place[0]})" if place[0] == place[1] else f"{one} ({place[0]}-{place[1]})"


def _codecs(rows: Iterable[Mapping[str, Any]]) -> str:
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"] if axis_of(name)))
    head = ["codec", "beside arms at", f"rate ({rows[0]['unit']})", *names]
    body = [
        [
            row["codec"],
            number(row.get("beside")),
            number(row["rate"]) + ("" if row.get("reached", True) else ", least"),
            *(number(row["metrics"].get(name)) for name in names),
        ]
        for row in rows
    ]
    return markdown([head, *body])


def markdown(rows: list[list[str]]) -> str:
    """A table with aligned columns, the first row its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
