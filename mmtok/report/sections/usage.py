"""How codebooks are used: shares of codes, their figures, and how they came to it over training."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmtok.report.html import Content, tag
from mmtok.report.looking import Look
from mmtok.report.numbers import number
from mmtok.report.sections.widgets import chart, legend, lines, scope, select
from mmtok.report.story import Section, Story
from mmtok.report.tables import Cell, Column, table, value

HISTORY = re.compile(r"(val/)?usage/(\d+/)?(active|active_expected|perplexity_norm|evenness|top1_share|live)$")
"""Columns of the logs that are its history."""
PLACES = 160
"""Of a curve of shares."""


def usage(story: Story) -> Section | None:
    """Shares by rank, history, and a table a level."""
    counted = [one for one in story.looks if any(map(sum, one.counts))]
    runs = [run for run in story.runs if any(HISTORY.match(name) for name in run.log.columns)]
    names = sorted({name for run in runs for name in run.log.columns if HISTORY.match(name)}, key=_order)
    if not counted and not names and not any(run.usage for run in story.runs):
        return None
    series = list(dict.fromkeys([*(one.run.series for one in counted), *(run.series for run in runs)]))
    depth = max((len(one.counts) for one in counted), default=0)
    panels: list[Content] = []
    if counted:
        what = "Share of each code, from the commonest to the rarest, in units of an even share"
        levels = select("Level", "usage-level", [(str(i), str(i + 1)) for i in range(depth)]) if depth > 1 else None
        head = tag(
            "div", tag("span", "Codes from the commonest to the rarest", class_="what"), levels, class_="controls"
        )
        panels.append(tag("div", head, chart("usage-shares", what)))
    if names:
        columns = select("Over training", "usage-history-column", [(name, name) for name in names])
        panels.append(
            tag(
                "div",
                tag("div", columns, class_="controls"),
                chart("usage-history", "Use of codes over updates, a line a run"),
            )
        )
    body = tag(
        "div",
        tag("div", scope(story, "usage", series), legend(story, series, "usage"), class_="controls"),
        tag("div", panels, class_="two"),
        _table(story),
        _told(counted),
    )
    data = {
        "shares": [_shares(one, story) for one in counted],
        "runs": lines(runs, names, story),
        "first": [name for name in ("val/usage/active", "usage/active") if name in names][:1] or names[:1],
    }
    lead = "An even share is 1; where a curve ends, the rest of the codes never occurred."
    return Section("usage", "Codebook usage", lead, body, data)


def _order(name: str) -> tuple[int, str]:
    """Means of the levels before single ones."""
    return len(re.findall(r"\d+/", name)), name


def _shares(one: Look, story: Story) -> dict[str, Any]:
    return {
        "name": one.run.series,
        "colour": story.colour(one.run.series),
        "levels": [shares_by_rank(level) for level in one.counts],
    }


def shares_by_rank(counts: Sequence[int]) -> list[list[float]]:
    """[percent of the codes, share over an even one] from the commonest code to the rarest that occurred."""
    ordered = sorted((count for count in counts if count), reverse=True)
    total, size = sum(ordered), len(counts)
    places = sorted({round(i * (len(ordered) - 1) / (PLACES - 1)) for i in range(PLACES)} if ordered else ())
    return [[round(100 * (i + 1) / size, 3), float(f"{ordered[i] * size / total:.4g}")] for i in places]


def _table(story: Story) -> Content:
    """Of the last evaluation of the first run of each series."""
    first = {run.series: run for run in reversed(story.runs) if run.usage}
    columns = [
        Column("run", numeric=False), Column("level"), Column("codes"), Column("in use (%)"),
        Column("of expected (%)", "the same over what even use would show of so few tokens"),
        Column("perplexity", "number of even codes that would carry as much"), Column("evenness", "1 - Gini"),
        Column("commonest (%)", "load of the commonest code"), Column("tokens a code"), Column("state", numeric=False),
    ]  # fmt: skip
    rows = [
        [Cell(story.named(name), name, first[name].name), value(i + 1), *_level(level)]
        for name in story.series
        if name in first
        for i, level in enumerate(first[name].usage)
    ]
    return table("Use of codes, in the last evaluation", columns, rows) if rows else None


def _level(level: Mapping[str, Any]) -> list[Cell]:
    """From the third column on."""
    shares = (100 * level["active"], 100 * level["active_expected"], level["perplexity"], level["evenness"])
    figures = (level["size"], *shares, 100 * level["top1_share"], level["tokens_per_code"])
    return [*map(value, figures), _state(level)]


def _state(level: Mapping[str, Any]) -> Cell:
    state = str(level["state"])
    note = f"{number(level['tokens_per_code'])} tokens a code are too few to judge by" if state == "n/a" else None
    shown = "too few tokens" if state == "n/a" else state
    return Cell(tag("span", shown, class_=f"state {state.replace('/', '')}", title=note), state, state)


def _told(counted: Sequence[Look]) -> Content:
    few = [one for one in counted if one.surveyed and not one.run.counts]
    if not few:
        return None
    said = ", ".join(f"{one.run.name} ({one.surveyed} items)" for one in few)
    return tag("p", f"The shares were counted for this page: {said}.", class_="note")
