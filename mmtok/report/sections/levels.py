"""What each further level of a residual quantizer buys: where residuals stop paying."""

from __future__ import annotations

from typing import Any

from mmtok.report.html import tag
from mmtok.report.numbers import LEVELS
from mmtok.report.sections.widgets import chart, legend, scope
from mmtok.report.sources import Comparison
from mmtok.report.story import Section, Story


def levels(story: Story) -> Section | None:
    """Signal-to-noise ratio by the number of levels decoded, a line an arm."""
    lines = [line for one in story.comparisons for line in _lines(one, story)]
    if not lines:
        return None
    series = [line["name"] for line in lines]
    controls = tag("div", scope(story, "levels", series), legend(story, series, "levels"), class_="controls")
    drawn = chart("levels-snr", "Signal-to-noise ratio in dB over the number of levels decoded, a line an arm")
    lead = (
        "Signal-to-noise ratio (dB) of items decoded from their first levels alone. Bars are 95 % intervals over seeds."
    )
    return Section("levels", "What each level buys", lead, tag("div", controls, drawn), lines)


def _lines(comparison: Comparison, story: Story) -> list[dict[str, Any]]:
    names = sorted(
        (name for name in comparison.summary if name.startswith(LEVELS)),
        key=lambda name: int(name.removeprefix(LEVELS)),
    )
    found = []
    for arm in comparison.arms:
        points = [
            [int(name.removeprefix(LEVELS)), one["mean"], one["half"]]
            for name in names
            if (one := comparison.summary[name].get(arm))
        ]
        if points:
            series = comparison.prefix + arm
            found.append({"name": series, "colour": story.colour(series), "points": points})
    return found
