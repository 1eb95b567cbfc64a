"""How the trainings went: any column of the logs, over updates."""

from __future__ import annotations

import re

from mmtok.report.html import tag
from mmtok.report.sections.widgets import chart, check, legend, lines, scope, select
from mmtok.report.story import Section, Story

FIRST = ("val/psnr", "val/si_sdr", "loss", "val/loss")
"""Columns shown first, where there are any."""
ELSEWHERE = re.compile(r"(val/)?usage/(\d+/|size|tokens$)|alarm/|data/|samples$")
"""Columns that other sections tell, or that tell nothing over time."""


def curves(story: Story) -> Section | None:
    """Two charts side by side, a column each."""
    runs = [run for run in story.runs if run.log.columns and not run.fitted]
    names = sorted({name for run in runs for name in run.log.columns if not ELSEWHERE.match(name)}, key=_order)
    if not names:
        return None
    choices = [(name, name) for name in names]
    panels = [
        tag(
            "div",
            tag(
                "div", select("Curve", f"curves-{side}-column", choices), check("log scale", f"curves-{side}-log"),
                tag("button", "Reset zoom", type="button", id=f"curves-{side}-reset"), class_="controls",
            ),
            chart(f"curves-{side}", "Chosen column of the log over updates, a line a run"),
        )
        for side in ("left", "right")
    ]  # fmt: skip
    series = list(dict.fromkeys(run.series for run in runs))
    body = tag(
        "div",
        tag("div", scope(story, "curves", series), legend(story, series, "curves"), class_="controls"),
        tag("div", panels, class_="two"),
    )
    first = [name for name in FIRST if name in names] + names
    data = {"runs": lines(runs, names, story), "first": list(dict.fromkeys(first))[:2]}
    lead = "Drag over a chart to zoom in. Runs of one arm share its colour."
    return Section("curves", "Training curves", lead, body, data)


def _order(name: str) -> tuple[bool, bool, str]:
    """Validation, then training, then speeds and the like."""
    return not name.startswith("val/"), not name.startswith(("loss", "psnr", "si_sdr", "usage")), name
