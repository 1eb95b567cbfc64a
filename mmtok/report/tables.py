"""Tables that sort by a click or a key, and are copied as TSV or Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmtok.report.html import Content, Html, join, tag
from mmtok.report.numbers import number, spread

NARROW = 4
"""Columns of a table that leaves room for another beside it."""


class Column(NamedTuple):
    """A head of a table."""

    title: str
    note: str = ""
    """What the figure is, for a pointer that rests on it."""
    higher: bool | None = None
    """Whether more is better."""
    numeric: bool = True


class Cell(NamedTuple):
    """A cell: what is seen, what it is sorted by, and what a copy holds."""

    content: Content
    sort: float | str | None = None
    copy: str | None = None
    """None copies the text that is seen."""


def value(one: float | None) -> Cell:
    """Of a figure."""
    return Cell(number(one), one, None if one is None else f"{one:.6g}")


def interval(mean: float, half: float | None, place: tuple[int, int] | None, arms: int) -> Cell:
    """Of a mean with its 95 % interval and the places it may have."""
    centre, beside = spread(mean, half)
    shown: list[Content] = [tag("b", centre)]
    if beside:
        shown.append(tag("span", f" ± {beside}", class_="half"))
    copied = centre + (f" ± {beside}" if beside else "")
    if place is not None and half is not None and arms > 1:
        said = str(place[0]) if place[0] == place[1] else f"{place[0]}–{place[1]}"
        shown += [
            " ",
            tag("span", said, class_="place" + (" first" if place == (1, 1) else ""), title="places it may have"),
        ]
        copied += f" ({said})"
    return Cell(shown, mean, copied)


def table(name: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> Html:
    """A table with its tools; `name` is its caption, and heads a copy."""
    heads = [tag("th", _head(column), scope="col", aria_sort="none", class_=_kind(column)) for column in columns]
    body = [tag("tr", [_cell(cell, column) for cell, column in zip(row, columns, strict=True)]) for row in rows]
    tools = tag(
        "div",
        tag("button", "Copy TSV", type="button", data_copy="tsv", aria_label=f"Copy {name} as TSV"),
        tag("button", "Copy Markdown", type="button", data_copy="markdown", aria_label=f"Copy {name} as Markdown"),
        tag("span", class_="said", role="status"),
        class_="tools",
    )
    whole = tag("table", tag("thead", tag("tr", heads)), tag("tbody", body), aria_label=name)
    inside = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=f"{name}, scrolls")
    return tag(
        "div",
        tag("div", tag("h3", name), tools, class_="table-head"),
        inside,
        class_=f"table {'wide' if len(columns) > NARROW else ''}".strip(),
    )


def _cell(cell: Cell, column: Column) -> Html:
    sort = None if cell.sort is None else (f"{cell.sort:.9g}" if isinstance(cell.sort, int | float) else cell.sort)
    return tag("td", join(cell.content), data_sort=sort, data_copy=cell.copy, class_=None if column.numeric else "text")


def _head(column: Column) -> Html:
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[column.higher]
    return tag("button", column.title, tag("span", arrow, class_="arrow"), type="button", title=column.note or None)


def _kind(column: Column) -> str | None:
    return None if column.numeric else "text"
