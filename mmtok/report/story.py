"""What the sections are written from: runs, comparisons, and what their tokenizers said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mmtok.report.html import Html, tag
from mmtok.report.looking import Look, look
from mmtok.report.media import Media
from mmtok.report.sources import Comparison, Run, read_sources

COLOURS = 10
"""Colours of series; an eleventh has the first one's again, and another mark."""
LOOKED = 8
"""Series whose tokenizers are asked: each is loaded and run when the report is made."""


class Section(NamedTuple):
    """A part of the page."""

    id: str
    title: str
    lead: str
    """A sentence on what it shows."""
    body: Html
    data: Any = None
    """For the scripts, by the section's id."""


@dataclass(frozen=True)
class Story:
    """Everything a report tells."""

    alone: tuple[Run, ...]
    """Runs that were named themselves."""
    comparisons: tuple[Comparison, ...]
    looks: tuple[Look, ...]
    """Of the first run of each series."""
    media: Media = field(default_factory=Media)

    @property
    def runs(self) -> tuple[Run, ...]:
        """All of them, cells of comparisons included."""
        return (*self.alone, *(run for one in self.comparisons for run in one.runs))

    @property
    def series(self) -> tuple[str, ...]:
        """What has a colour, in order."""
        return tuple(dict.fromkeys(run.series for run in self.runs))

    def swatch(self, series: str) -> Html:
        """The mark of a series in running text; its name stands beside it."""
        number = self.series.index(series) % COLOURS
        return tag("i", class_=f"swatch s{number}", aria_hidden="true")

    def named(self, series: str) -> Html:
        """A series with its mark."""
        return tag("span", self.swatch(series), series, class_="named")


def tell(paths: Sequence[Path], items: int, quick: bool, say: Callable[[str], None]) -> Story:
    """Read the sources, and ask tokenizers for what only they know.

    Args:
        paths: of runs, comparisons, or folders of them.
        items: pictures or sounds of each series at most.
        quick: ask no tokenizer.
        say: what hears of progress.

    Raises:
        ValueError: there is nothing to report, or something is damaged.
    """
    alone, comparisons = read_sources(paths)
    if comparisons and (alone or len(comparisons) > 1):  # arms of one name in two places are two things
        comparisons = tuple(_prefixed(one) for one in comparisons)
    runs = (*alone, *(run for one in comparisons for run in one.runs))
    first = {run.series: run for run in reversed(runs)}
    chosen = [first[name] for name in dict.fromkeys(run.series for run in runs)][:LOOKED]
    looks = []
    for run in chosen:
        if not quick:
            say(f"looking at {run.name}")
        looks.append(look(run, items, ask=not quick))
    return Story(alone, comparisons, tuple(looks))


def _prefixed(comparison: Comparison) -> Comparison:
    runs = tuple(
        dataclasses.replace(run, name=f"{comparison.name}: {run.name}", series=f"{comparison.name}: {run.series}")
        for run in comparison.runs
    )
    return dataclasses.replace(comparison, runs=runs, prefix=f"{comparison.name}: ")
