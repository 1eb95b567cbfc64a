"""Codes cut short: what a length is worth, and how many steps a quality takes, item by item."""

from __future__ import annotations

from collections.abc import Iterator

from mmtok.report.html import Content, tag
from mmtok.report.sources import Run
from mmtok.report.story import Section, Story
from mmtok.report.tables import Column, table, value

SEARCHED = {
    "met": Column("met (%)", "items that have the quality with all of their code", higher=True),
    "kept": Column("kept", "steps an item keeps, the fewest that have the quality; mean", higher=False),
    "tokens": Column("tokens", "codes that these are", higher=False),
    "fixed": Column("the same for all", "least length that gives as large a share the quality", higher=False),
    "crossed": Column("crossed (%)", "items of which a shorter code was good enough and a longer one not"),
    "rank_correlation": Column("rank correlation", "of steps kept and bytes of the item as PNG or FLAC"),
}
"""Figure of a wanted quality -> its column."""
PERCENT = {"met", "crossed"}


def lengths(story: Story) -> Section | None:
    """Two tables a run whose codes were cut."""
    parts = [part for run in story.runs if run.lengths for part in _tables(run)]
    if not parts:
        return None
    lead = (
        "Quality of items whose codes all have one length, and the length of each item, the fewest steps that have a "
        "wanted quality. Quality is in dB."
    )
    return Section("lengths", "What a length is worth", lead, tag("div", parts, class_="tables"))


def _tables(run: Run) -> Iterator[Content]:
    found, quality = run.lengths, run.lengths["quality"]
    columns = [Column(found["axis"]), Column("tokens"), Column("bits"), Column(f"{quality} (dB)", higher=True)]
    rows = [[value(row[name]) for name in ("steps", "tokens", "bits", quality)] for row in found["by_length"]]
    yield table(f"Lengths: {run.name}", columns, rows)
    if found["searched"]:
        heads = [Column(f"{quality} wanted (dB)"), *SEARCHED.values()]
        yield table(
            f"Qualities: {run.name}",
            heads,
            [[value(one["target"]), *(value(_figure(one, name)) for name in SEARCHED)] for one in found["searched"]],
        )


def _figure(searched: dict[str, float | None], name: str) -> float | None:
    figure = searched.get(name)
    return 100 * figure if figure is not None and name in PERCENT else figure
