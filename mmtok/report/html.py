"""HTML without a template engine: text is escaped unless it is `Html` already."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any

VOID = {"img", "input", "meta", "br"}


class Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


Content = Html | str | float | None | Iterable[Any]
"""What stands in an element: markup, or text of anybody; None is nothing."""


def join(content: Content) -> Html:
    """Content as markup."""
    if content is None:
        return Html("")
    if isinstance(content, Html):
        return content
    if isinstance(content, str | int | float):
        return Html(html.escape(str(content)))
    return Html("".join(join(one) for one in content))


def tag(name: str, /, *content: Content, **attributes: str | float | bool | None) -> Html:
    """An element.

    Args:
        name: of it.
        content: what is in it.
        attributes: `class_` is class, `data_sort` is data-sort; True is an attribute without a value, None and False
            are none.
    """
    parts = [name]
    for key, value in attributes.items():
        written = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(written)
        elif value is not None and value is not False:
            parts.append(f'{written}="{html.escape(str(value))}"')
    opened = f"<{' '.join(parts)}>"
    return Html(opened if name in VOID else f"{opened}{join(content)}</{name}>")


def script_data(identity: str, plain: Any) -> Html:
    """JSON for a script to read. No text in it can end the element or start a comment of HTML."""
    written = json.dumps(plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    for sign, escaped in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        written = written.replace(sign, escaped)
    return Html(f'<script type="application/json" id="{identity}">{written}</script>')
