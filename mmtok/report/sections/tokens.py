"""Which code stands where in a picture, and which patches chose a code."""

from __future__ import annotations

from typing import Any

from mmtok.report.html import Content, Html, tag
from mmtok.report.looking import Look
from mmtok.report.media import png
from mmtok.report.sections.widgets import by_group, picture, select
from mmtok.report.story import Section, Story

PICTURES = 4
"""With a map, of each series."""


def tokens(story: Story) -> Section | None:
    """Maps, then galleries, a series each."""
    looks = [one for one in story.looks if one.ids or one.gallery]
    blocks: list[tuple[str, Content]] = []
    data: list[dict[str, Any]] = []
    for one in looks:
        maps = [shown for i in range(min(PICTURES, len(one.ids))) if (shown := _map(one, i, len(data), story))]
        gallery = _gallery(one, story, opened=not blocks)
        if maps or gallery:
            head = tag("h3", story.named(one.run.series), tag("span", _sizes(one), class_="aside"))
            controls = _controls(one, len(data)) if maps else None
            blocks.append((one.run.series, tag("div", head, controls, tag("div", maps, class_="maps"), gallery)))
            data.append(_plain(one))
    notes = [tag("p", note, class_="note") for one in story.looks for note in one.notes]
    if not blocks and not notes:
        return None
    lead = (
        "Each square of a map is a code. Point at one, or move with the arrow keys: all squares of the same code light "
        "up. Below, patches that chose a code, nearest first, in what surrounds them." if blocks else ""
    )  # fmt: skip
    return Section("tokens", "Tokens", lead, tag("div", by_group(story, blocks), notes), data)


def _controls(one: Look, number: int) -> Html:
    choices = [("similar", "similar codes alike")]
    choices += [(str(i), f"level {i + 1}, a colour a code") for i in range(one.ids[0].shape[0])]
    veil = tag(
        "label", tag("span", "Map over picture"),
        tag("input", type="range", min=0, max=100, value=65, data_veil=number),
    )  # fmt: skip
    return tag("div", select("Colours", f"tokens-colours-{number}", choices), veil, class_="controls")


def _map(one: Look, item: int, number: int, story: Story) -> Html | None:
    x = one.inputs[item]
    key = story.media.add("image/png", png(x))
    if not key:
        return None
    name = f"{one.run.name}, picture {item + 1}: map of codes"
    return tag(
        "figure",
        tag(
            "div",
            picture(key, "", (x.shape[1], x.shape[2])),
            tag(
                "canvas",
                data_map=f"{number},{item}",
                tabindex="0",
                role="application",
                aria_label=f"{name}; arrow keys move",
            ),
            class_="map",
        ),
        tag("figcaption", "point at a square", aria_live="polite"),
    )


def _plain(one: Look) -> dict[str, Any]:
    return {
        "maps": [
            {
                "grid": list(one.grids[i]),
                "ids": one.ids[i].tolist(),
                "similar": ["#" + bytes(colour).hex() for colour in one.colours[i].tolist()],
            }
            for i in range(min(PICTURES, len(one.ids)))
        ],
        "sizes": list(one.sizes),
    }


def _sizes(one: Look) -> str:
    levels = f", {len(one.sizes)} levels" if len(one.sizes) > 1 else ""
    height, width = one.grids[0] if one.grids else (0, 0)
    grid = f", {height} × {width} positions" if one.grids else ""
    return f"{max(one.sizes, default=0):,} codes{levels}{grid}"


def _gallery(one: Look, story: Story, *, opened: bool) -> Content:
    if not one.gallery:
        return None
    rows = []
    for chosen in one.gallery:
        if key := story.media.add("image/png", png(chosen.strip)):
            marks = tag("span", [tag("i") for _ in range(chosen.patches)], class_="marks", aria_hidden="true")
            alt = f"{one.run.name}: {chosen.patches} patches that chose code {chosen.code}"
            height, width = chosen.strip.shape[1:]
            strip = tag("div", picture(key, alt, (height, width)), marks, class_="strip")
            caption = tag("figcaption", tag("b", chosen.code), f" {chosen.count:,}×")
            rows.append(tag("figure", caption, strip))
    level = " of the first level" if len(one.sizes) > 1 else ""
    note = (
        f"Patches by code{level}, among {one.surveyed} held-out pictures: the code, how often it occurred, and what "
        "chose it (framed), with as much again on each side."
    )
    if not rows:
        return None
    summary = tag("summary", "Patches that chose a code")
    return tag("details", summary, tag("p", note, class_="note"), tag("div", rows, class_="gallery"), open=opened)
