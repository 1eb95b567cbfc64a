"""The page: sections, scripts, styles, media and data in one file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmtok.report.html import Html, script_data, tag
from mmtok.report.sections import SECTIONS
from mmtok.report.story import Section, Story

STYLES = ("page.css", "tables.css", "figures.css")
SCRIPTS = ("vendor/echarts.common.min.js", "page.js", "tables.js", "media.js", "charts.js", "tokens.js")
POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data: blob:",
        "media-src data: blob:",
        "style-src 'unsafe-inline'",
        "script-src 'unsafe-inline'",
    )
)
"""The browser itself refuses whatever would ask the network."""


def render(story: Story, title: str, made: str) -> str:
    """The whole page.

    Args:
        story: what it tells.
        title: of it.
        made: one line on when and by what.
    """
    sections = [found for one in SECTIONS if (found := one(story)) is not None]
    data: dict[str, Any] = {section.id: section.data for section in sections if section.data is not None}
    data["groups"] = {series: name for name, own in story.groups.items() for series in own}
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html("\n".join(map(_asset, STYLES)))),
    )
    body = tag(
        "body",
        tag("a", "Skip to the verdict", href="#verdict", class_="skip"),
        tag("div", _side(sections), tag("main", _top(title, made, story), map(_section, sections)), class_="frame"),
        script_data("data", data),
        script_data("media", story.media.files),
        [tag("script", Html(_asset(name))) for name in SCRIPTS],
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    text = files("mmtok.report").joinpath("assets", name).read_text(encoding="utf-8")
    assert "</script" not in text, f"{name} would end its element"
    return text


def _side(sections: list[Section]) -> Html:
    links = [tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections]
    theme = tag(
        "button", tag("span", class_="moon", aria_hidden="true"), tag("span", "Dark colours", id="theme-other"),
        type="button", id="theme",
    )  # fmt: skip
    return tag("nav", tag("p", "mmtok report", class_="brand"), tag("ol", links), theme, aria_label="Sections")


def _top(title: str, made: str, story: Story) -> Html:
    runs, comparisons = len(story.runs), len(story.comparisons)
    arms = sum(len(one.arms) for one in story.comparisons)
    said = [f"{runs} run{'s' * (runs != 1)}"]
    if comparisons:
        said.insert(0, f"{arms} arms")
    if comparisons > 1:
        said.insert(0, f"{comparisons} comparisons")
    return tag("header", tag("h1", title), tag("p", " · ".join([*said, made]), class_="made"))


def _section(section: Section) -> Html:
    lead = tag("p", section.lead, class_="lead") if section.lead else None
    heading = f"{section.id}-title"
    return tag(
        "section", tag("h2", section.title, id=heading), lead, section.body, id=section.id, aria_labelledby=heading
    )


def write_page(text: str, target: Path) -> None:
    """In place of what was there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
