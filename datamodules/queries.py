"""Questions and the item each asks for: a CSV with the header `query,item,split`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from mmtok.schema import ConfigError

HEADER = ("query", "item", "split")
SPLITS = ("train", "val", "test")


class Query(NamedTuple):
    text: str
    item: str
    split: str
    """One of `SPLITS`."""


def read_queries(path: str | Path) -> list[Query]:
    """Every row of a file.

    Raises:
        ConfigError: the file is missing or empty, or a row is no query; with its line.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}. Queries come as CSV with the header {','.join(HEADER)}.")
    found = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = [name.strip() for name in next(rows, [])]
            if missing := [name for name in HEADER if name not in header]:
                raise ConfigError(f"{path}, line 1: no column {', '.join(missing)}. The header is {','.join(HEADER)}.")
            places = [header.index(name) for name in HEADER]
            for row in rows:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ConfigError(
                        f"{path}, line {rows.line_num}: {len(row)} fields, and the header has {len(header)}."
                    )
                query = Query(*(row[place].strip() for place in places))
                if query.split not in SPLITS or not query.text or not query.item:
                    wrong = f"the split '{query.split}' is none of {', '.join(SPLITS)}"
                    said = wrong if query.text and query.item else "no query" if query.item else "no item"
                    raise ConfigError(f"{path}, line {rows.line_num}: {said}.")
                found.append(query)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8.") from error
    except csv.Error as error:
        raise ConfigError(f"{path}, line {rows.line_num}: no CSV: {error}.") from error
    if not found:
        raise ConfigError(f"{path} holds no queries.")
    return found
