"""What the sections are written from: runs, comparisons, and what their tokenizers said."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mmtok.report.html import Html, tag
from mmtok.report.looking import Look, look
from mmtok.report.media import Media
from mmtok.report.sources import Comparison, Run, read_sources

COLOURS = 10
"""Colours of series; an eleventh has the first one's again, and another mark."""
LOOKED = 8
"""Series of a comparison whose tokenizers are asked: each is loaded and run when the report is made."""


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
        """All of them, cells of comparisons first."""
        return (*(run for one in self.comparisons for run in one.runs), *self.alone)

    @property
    def series(self) -> tuple[str, ...]:
        """What has a colour, in order."""
        return tuple(dict.fromkeys(run.series for run in self.runs))

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Series by comparison; those of runs by themselves under ""."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            own = found.setdefault(run.group, [])
            if run.series not in own:
                own.append(run.series)
        return found

    def group(self, series: str) -> str:
        """Of a series."""
        return next(name for name, own in self.groups.items() if series in own)

    def colour(self, series: str) -> int:
        """Number of its colour: its place in its group."""
        return self.groups[self.group(series)].index(series)

    def swatch(self, series: str) -> Html:
        """The mark of a series in running text; its name stands beside it."""
        return tag("i", class_=f"swatch s{self.colour(series) % COLOURS}", aria_hidden="true")

    def label(self, series: str) -> str:
        """Its name where its group is told beside it."""
        return series.removeprefix(f"{self.group(series)}: ")

    def named(self, series: str) -> Html:
        """A series with its mark."""
        return tag("span", self.swatch(series), self.label(series), class_="named")


def tell(
    paths: Sequence[Path], items: int, quick: bool, say: Callable[[str], None], asks: Mapping[str, str] | None = None
) -> Story:
    """Read the sources, and ask tokenizers for what only they know.

    Args:
        paths: of runs, comparisons, or folders of them.
        items: pictures or sounds of each series at most.
        quick: ask no tokenizer.
        say: what hears of progress.
        asks: questions that comparisons answer, by the name of their folder, in the order they are told in.

    Raises:
        ValueError: there is nothing to report, or something is damaged.
    """
    alone, comparisons = read_sources(paths)
    if asks:
        order = [*asks, *(one.folder.name for one in comparisons)]
        told = (dataclasses.replace(one, asks=asks.get(one.folder.name, "")) for one in comparisons)
        comparisons = tuple(sorted(told, key=lambda one: order.index(one.folder.name)))
    if comparisons and (alone or len(comparisons) > 1):  # arms of one name in two places are two things
        comparisons = tuple(_prefixed(one) for one in comparisons)
    runs = (*(run for one in comparisons for run in one.runs), *alone)
    first = {run.series: run for run in reversed(runs)}
    looks: list[Look] = []
    for run in (first[name] for name in dict.fromkeys(run.series for run in runs)):
        if sum(one.run.group == run.group for one in looks) == LOOKED:
            continue
        if not quick:
            say(f"looking at {run.name}")
        looks.append(look(run, items, ask=not quick))
    return Story(alone, comparisons, tuple(looks))


def _prefixed(comparison: Comparison) -> Comparison:
    prefix = f"{comparison.name}: "
    runs = tuple(
        dataclasses.replace(run, name=prefix + run.name, series=prefix + run.series, group=comparison.name)
        for run in comparison.runs
    )
    return dataclasses.replace(comparison, runs=runs, prefix=prefix)
