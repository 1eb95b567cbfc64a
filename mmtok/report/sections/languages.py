"""Texts by language: how short each becomes, and what the same pages cost in one and the other."""

from __future__ import annotations

from mmtok.report.html import Content, tag
from mmtok.report.sources import Run
from mmtok.report.story import Section, Story
from mmtok.report.tables import Cell, Column, table, value

COLUMNS = {
    "documents": Column("documents"),
    "bytes_per_token": Column("bytes a token", "bytes of UTF-8 over tokens", higher=True),
    "characters_per_token": Column("characters a token", "Unicode characters over tokens", higher=True),
    "fallback_share": Column("fallback (%)", "tokens that are one byte beyond ASCII", higher=False),
    "parity": Column("parity", "tokens over those of the reference on the same pages", higher=False),
}
"""Figure of a language -> its column."""
PERCENT = {"fallback_share"}


def languages(story: Story) -> Section | None:
    """A table a run that was measured by language."""
    told = [run for run in story.runs if run.report.get("choices", {}).get("by_language")]
    if not told:
        return None
    parts: list[Content] = [_table(run) for run in told]
    references = {
        (parity["reference"], parity["documents"])
        for run in told
        if (parity := run.report["choices"].get("parity", {})).get("reference")
    }
    said = "; ".join(f"{name}, over {count:,} pages that all languages have" for name, count in sorted(references))
    lead = f"Parity is against {said}: 1 costs the same." if said else "No page stands in several languages here."
    return Section("languages", "Languages", lead, tag("div", parts, class_="tables"))


def _table(run: Run) -> Content:
    by_language = run.report["choices"]["by_language"]
    names = [name for name in COLUMNS if any(name in one for one in by_language.values())]
    rows = [
        [Cell(language, language), *(_cell(name, one.get(name)) for name in names)]
        for language, one in by_language.items()
    ]
    columns = [Column("language", numeric=False), *(COLUMNS[name] for name in names)]
    return table(f"Languages: {run.name}", columns, rows)


def _cell(name: str, figure: float | None) -> Cell:
    if name == "documents" and figure is not None:
        return Cell(f"{figure:,}", figure, str(figure))
    return value(100 * figure if figure is not None and name in PERCENT else figure)
