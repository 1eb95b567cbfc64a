"""Texts on their way into a shard: UTF-8 that was checked, the words of web pages, one document a sample."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, ClassVar

from datamodules.build.prepare import Prepared, Preparer
from datamodules.build.source import Entry

TEXTS = ("txt", "md", "rst", "html", "htm")
"""Extensions of files that are taken as texts."""
PAGES = ("html", "htm")
MAX_BYTES = 16 << 20
"""Of one document: what a training run decodes at most."""


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """What `mmtok shards build` takes for texts."""

    min_characters: int = 1
    """Shortest document that is taken, in characters."""

    def __post_init__(self) -> None:
        if self.min_characters < 1:
            raise ValueError(f"min_characters={self.min_characters} must be at least 1.")


class Texts(Preparer):
    """Documents become `.txt` members in UTF-8. Their class is their language, where folders or names say one."""

    kind, noun = "text", "texts"
    extensions = TEXTS
    options: ClassVar[type] = TextOptions
    companion = True
    chosen: TextOptions

    def prepare(self, entry: Entry) -> Prepared:
        parts = entry.read()
        extension = next(name for name in parts if name in TEXTS)
        try:
            text = parts[extension].decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"no UTF-8: byte {error.start} is {parts[extension][error.start]:#04x}") from error
        if extension in PAGES:
            text = words_of(text)
        data = text.strip().encode()
        if len(data) > MAX_BYTES:
            return Prepared([], {}, f"longer than {MAX_BYTES >> 20} MiB: cut it into documents")
        if len(text.strip()) < self.chosen.min_characters:
            return Prepared([], {}, "empty" if not data else f"shorter than {self.chosen.min_characters} characters")
        members = {"txt": data}
        if entry.group != entry.key:  # what it has in common with its translations, or with parts of one book
            members["json"] = json.dumps({"parallel": entry.group}, ensure_ascii=False).encode()
        return Prepared([(entry.key, members)], {"bytes": len(data), "characters": len(text.strip())})

    def facts(self, measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        kept = [one for one in measures.values() if one]
        return {name: int(sum(one[name] for one in kept)) for name in ("bytes", "characters")}

    def remarks(self, facts: Mapping[str, Any]) -> list[str]:
        return [f"{facts['characters']:,} characters, {facts['bytes']:,} bytes of UTF-8"]


def words_of(page: str) -> str:
    r"""The words of a web page: no scripts, menus, headers and footers; a line a paragraph, <pre> as it stands.

    >>> words_of("<nav>Home</nav><h1>One</h1><p>Two\n<b>three</b></p><script>x()</script>")
    'One\nTwo three'
    """
    reader = _Page()
    reader.feed(page)
    reader.close()
    lines = (line.rstrip() for line in "".join(reader.found).split("\n"))
    return re.sub(r"\n{2,}", "\n", "\n".join(line for line in lines if line)).strip()


class _Page(HTMLParser):
    """Collects text between the tags that hold content."""

    LEFT_OUT = frozenset(
        {"head", "script", "style", "nav", "header", "footer", "aside", "template", "noscript", "svg", "button"}
    )
    # Tags that end what stands before them. The others (b, a, span ...) stand inside a line.
    BLOCKS = frozenset(
        {"p", "div", "br", "li", "ul", "ol", "dl", "dt", "dd", "tr", "td", "th", "table", "pre", "blockquote",
         "section", "article", "main", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "figure", "figcaption"}
    )  # fmt: skip

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._left_out: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in self.LEFT_OUT:
            self._left_out.append(tag)
        self._pre += tag == "pre"
        self._end_line(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._left_out:  # with all that was left open inside it
            del self._left_out[self._left_out.index(tag) :]
        self._pre -= tag == "pre" and self._pre > 0
        self._end_line(tag)

    def handle_data(self, data: str) -> None:
        if self._left_out:
            return
        if not self._pre:
            data = re.sub(r"\s+", " ", data)
            if not self.found or self.found[-1].endswith(("\n", " ")):
                data = data.lstrip()
        if data:
            self.found.append(data)

    def _end_line(self, tag: str) -> None:
        if tag in self.BLOCKS and self.found and not self.found[-1].endswith("\n"):
            self.found.append("\n")
