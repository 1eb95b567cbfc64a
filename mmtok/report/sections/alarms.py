"""Alarms of the trainings: when each rose, and whether it stands."""

from __future__ import annotations

from mmtok.report.html import Content, tag
from mmtok.report.story import Section, Story
from mmtok.report.tables import Cell, Column, table

MEANING = {
    "collapse": "few codes carry everything",
    "blur": "reconstructions lack fine detail",
    "gap": "quantizing costs much of what the decoder could do",
    "drift": "ids tell less of the class than they did",
}


def alarms(story: Story) -> Section | None:
    """A row each time one rose; a sentence where none did."""
    watched = [run for run in story.runs if any(name.startswith("alarm/") for name in run.log.columns)]
    if not watched:
        return None
    rows = []
    for run in watched:
        for name in sorted(one for one in run.log.columns if one.startswith("alarm/")):
            short = name.removeprefix("alarm/")
            for rose, fell in run.log.spans(name):
                stands = tag("span", "stands", class_="state collapsed")
                rows.append(
                    [
                        Cell(tag("span", story.swatch(run.series), run.name, class_="named"), run.name, run.name),
                        Cell(short, short), Cell(MEANING.get(short, "")), Cell(f"{rose:,}", rose),
                        Cell(stands if fell is None else f"{fell:,}", float("1e18") if fell is None else fell),
                    ]
                )  # fmt: skip
    columns = [
        Column("run", numeric=False), Column("alarm", numeric=False), Column("meaning", numeric=False),
        Column("rose at step"), Column("cleared at step"),
    ]  # fmt: skip
    quiet = f"No alarm rose in any of {len(watched)} runs." if len(watched) > 1 else "No alarm rose."
    body: Content = table("Alarms", columns, rows) if rows else tag("p", quiet)
    return Section("alarms", "Alarms", "", tag("div", body))
