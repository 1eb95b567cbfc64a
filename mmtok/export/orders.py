"""Which parts stand in a document, in which orders, and what such documents can be written as."""

from __future__ import annotations

from collections.abc import Sequence

from mmtok.export.documents import TEXT, Source
from mmtok.export.token_spec import TokenSpec

ROWS_APART = ("parquet", "webdataset")
"""Formats that hold rows of any shape, with their lengths beside them."""


def orders_of(orders: Sequence[Sequence[str]], sources: Sequence[Source]) -> list[tuple[str, ...]]:
    """Orders by prefix.

    Raises:
        ValueError: a part that no set has, or that two tokenizers may be meant by.
    """
    specs = {source.spec.prefix: source.spec for source in sources if source.spec is not None}
    names = [*specs, *([TEXT] if any(source.has_text for source in sources) else [])]
    if not orders:
        return [tuple(specs) or (TEXT,)]
    found = []
    for order in orders:
        prefixes = []
        for name in order:
            same = [prefix for prefix, spec in specs.items() if spec.modality == name]
            if name not in names and len(same) != 1:
                hint = f"may be {' or '.join(same)}" if same else "is in none of the sets"
                raise ValueError(f"--order {','.join(order)}: '{name}' {hint}. They have {', '.join(names)}.")
            prefixes.append(name if name in names else same[0])
        if len(set(prefixes)) < len(prefixes) or not prefixes:
            raise ValueError(f"--order {','.join(order)} must name each part once.")
        found.append(tuple(prefixes))
    if len(set(found)) < len(found):
        raise ValueError("--order says the same twice, so that each document would be there twice.")
    return found


def apart(orders: Sequence[Sequence[str]], sources: Sequence[Source], to: str) -> TokenSpec | None:
    """The tokenizer whose items are documents by themselves: its layout has several rows, or ids from 0.

    Args:
        orders: by prefix.
        sources: of the parts.
        to: format of the pack.

    Returns:
        None where documents are rows of the vocabulary's ids.

    Raises:
        ValueError: something else is to stand beside such items, or the format holds one row of ids a document.
    """
    specs = {source.spec.prefix: source.spec for source in sources if source.spec is not None}
    found = [specs[name] for order in orders for name in order if name in specs and specs[name].layout.kind != "flat"]
    if not found:
        return None
    spec = found[0]
    said = f"the vocabulary lays '{spec.prefix}' out as {spec.layout.kind}, which is no one row of its ids"
    if len(orders) > 1 or len(orders[0]) > 1:
        raise ValueError(
            f"{said}, so text and other codes do not go into one with it. Pack it by itself: --order {spec.prefix}; "
            "the keys of the rows say what belongs together."
        )
    if to not in ROWS_APART:
        raise ValueError(f"{said}, and that is what --to {to} holds. Use --to {' or '.join(ROWS_APART)}.")
    return spec
