"""Pieces that several sections put together: charts, choices, legends, pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmtok.report.html import Content, Html, tag
from mmtok.report.numbers import thin
from mmtok.report.sources import Run
from mmtok.report.story import Story

POINTS = 120_000
"""Of all curves of a chart together, about 12 characters each."""


def chart(identity: str, label: str) -> Html:
    """A place that a script draws a chart in."""
    return tag("div", class_="chart", id=identity, role="img", aria_label=label)


def select(label: str, identity: str, choices: Iterable[tuple[str, str]]) -> Html:
    """A labelled choice."""
    options = [tag("option", shown, value=value) for value, shown in choices]
    return tag("label", tag("span", label), tag("select", options, id=identity))


def check(label: str, identity: str) -> Html:
    """A labelled box to tick."""
    return tag("label", tag("input", type="checkbox", id=identity), tag("span", label))


def scope(story: Story, section: str, series: Iterable[str]) -> Content:
    """Which comparison a section's charts show, where they have series of several."""
    names = list(dict.fromkeys(map(story.group, series)))
    return select("Of", f"{section}-scope", [(name, name or "runs") for name in names]) if len(names) > 1 else None


def by_group(story: Story, blocks: Sequence[tuple[str, Content]]) -> Content:
    """Blocks of series (name, block); where there are several comparisons, each comparison's can be folded away."""
    if len(story.groups) < 2:
        return [block for _, block in blocks]
    found: list[Html] = []
    for name in story.groups:
        own = [block for series, block in blocks if story.group(series) == name]
        if own:
            summary = tag("summary", name or "runs")
            found.append(tag("details", summary, tag("div", own, class_="folded"), open=not found, class_="group"))
    return found


def legend(story: Story, names: Sequence[str], charts: str) -> Content:
    """A button a series, which hides and shows it in the charts of a section."""
    if len(names) < 2:
        return None
    buttons = [
        tag(
            "button",
            story.swatch(name),
            story.label(name),
            type="button",
            aria_pressed="true",
            data_series=name,
            class_="key",
        )
        for name in names
    ]
    return tag("div", buttons, class_="legend", role="group", aria_label="Series shown", data_legend=charts)


def picture(key: str, alt: str, side: tuple[int, int] | None = None) -> Html:
    """A picture of the page's media; small ones are enlarged with hard edges. `side` is (height, width)."""
    hard = side is not None and max(side) <= 96
    height, width = side or (None, None)
    return tag("img", data_media=key, alt=alt, width=width, height=height, class_="hard" if hard else None)


def lines(runs: Sequence[Run], names: Sequence[str], story: Story) -> list[dict[str, object]]:
    """Curves of runs, thinned so that all of them together stay small: run -> column -> steps and values."""
    most = min(400, max(30, POINTS // max(1, 2 * len(names) * len(runs))))
    found = []
    for run in runs:
        columns = {}
        for name in names:
            if points := thin(run.log.columns.get(name, []), most):
                columns[name] = [[step for step, _ in points], [float(f"{value:.5g}") for _, value in points]]
        found.append({"name": run.name, "series": run.series, "colour": story.colour(run.series), "columns": columns})
    return found
