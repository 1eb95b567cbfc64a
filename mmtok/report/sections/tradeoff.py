"""Distortion, and all else that was measured, against bits and against tokens, with error bars."""

from __future__ import annotations

from typing import Any

from mmtok.compare.axes import axis_of
from mmtok.report.html import tag
from mmtok.report.numbers import title, titled
from mmtok.report.sections.results import RUN_FIGURES
from mmtok.report.sections.widgets import chart, legend, scope, select
from mmtok.report.sources import Comparison
from mmtok.report.story import Section, Story

BITS = ("bits_per_pixel", "bits_per_second", "bits_per_sample")
TOKENS = ("tokens_per_sample", "tokens_per_image", "tokens_per_second")
"""Rates, the first that a figure's arms have."""


def tradeoff(story: Story) -> Section | None:
    """Two charts and one choice of the figure."""
    points = [point for one in story.comparisons for point in _arms(one, story)] + _runs(story)
    rated = [point for point in points if any(name in point["figures"] for name in (*BITS, *TOKENS))]
    codecs = [line for one in story.comparisons for line in _codecs(one)]
    names = dict.fromkeys(name for point in rated for name in point["figures"] if name not in (*BITS, *TOKENS))
    higher = {name: axis.higher for name in names if (axis := axis_of(name))}
    chosen = [name for name in higher if higher[name] is not None]
    if not chosen:
        return None
    series = list(dict.fromkeys(point["name"] for point in points))
    body = tag(
        "div",
        tag(
            "div",
            select("Figure", "tradeoff-figure", [(name, titled(name)) for name in chosen]),
            scope(story, "tradeoff", [point["name"] for point in rated]),
            legend(story, series, "tradeoff"),
            class_="controls",
        ),
        tag(
            "div",
            chart("tradeoff-bits", "Chosen figure against bits, a point an arm"),
            chart("tradeoff-tokens", "Chosen figure against tokens, a point an arm"),
            class_="two",
        ),
    )
    data = {
        "points": points,
        "codecs": codecs,
        "axes": [list(BITS), list(TOKENS)],
        "titles": {name: titled(name) for name in (*names, *BITS, *TOKENS)},
        "higher": {name: higher[name] for name in chosen},
    }
    lead = "Bars are 95 % intervals over seeds." if story.comparisons else "One run each, so there are no intervals."
    if len(rated) < len(points) or codecs:
        lead += " Dashed: what quantizes nothing, and codecs."
    lead += " Points at one rate stand side by side."
    return Section("tradeoff", "Bits and tokens", lead, body, data)


def _arms(comparison: Comparison, story: Story) -> list[dict[str, Any]]:
    return [
        {
            "name": comparison.prefix + arm,
            "colour": story.colour(comparison.prefix + arm),
            "figures": {
                name: [arms[arm]["mean"], arms[arm]["half"]] for name, arms in comparison.summary.items() if arm in arms
            },
        }
        for arm in comparison.arms
    ]


def _runs(story: Story) -> list[dict[str, Any]]:
    return [
        {
            "name": run.series,
            "colour": story.colour(run.series),
            "figures": {name: [run.metrics[name], None] for name in RUN_FIGURES if name in run.metrics},
        }
        for run in story.alone
        if run.metrics
    ]


def _codecs(comparison: Comparison) -> list[dict[str, Any]]:
    """A line a codec, by rate."""
    rows = sorted(comparison.results.get("codecs", []), key=lambda row: row["rate"])
    rate = {"bits/pixel": "bits_per_pixel", "bits/s": "bits_per_second"}
    return [
        {
            "name": name,
            "group": comparison.prefix.removesuffix(": "),
            "points": [{rate.get(row["unit"], title(row["unit"])): row["rate"], **row["metrics"]} for row in own],
        }
        for name in dict.fromkeys(row["codec"] for row in rows)
        if (own := [row for row in rows if row["codec"] == name])
    ]
