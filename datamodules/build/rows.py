"""Files that hold a vector or a text a row: .npy, .parquet, .csv and .jsonl."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.build.source import ANYTHING, Entry, Source, Wanted, file_sha256
from datamodules.vectoritem import to_npy
from mmtok.schema import suggest

TABLES = ("npy", "parquet", "csv", "jsonl")
"""Extensions of the files."""
KEY_COLUMNS = ("key", "id", "item")
"""Where the keys are looked for when nobody says where; rows are numbered where there is none of them."""
CONTENT_COLUMNS = {"vectors": ("vector", "embedding", "x"), "text": ("text", "document")}
LARGEST_CELL = 16 << 20
"""Bytes of a cell of a .csv: as long as a text may be."""

Cell = Callable[[int], bytes]
"""Number of a row -> its content; raises ValueError for one that cannot be used."""


class RowsSource(Source):
    """One file of rows; which columns are read, `wanted` says."""

    def __init__(self, path: Path, wanted: Wanted = ANYTHING) -> None:
        self.path, self.wanted = path, wanted
        self.extension = path.suffix[1:].lower()
        super().__init__(
            {
                "kind": self.extension,
                "name": path.name,
                "licence": "not stated",
                "sha256": file_sha256(path),
                "bytes": path.stat().st_size,
            }
        )

    def entries(self) -> list[Entry]:
        read = {"npy": self._npy, "parquet": self._parquet, "csv": self._csv, "jsonl": self._jsonl}[self.extension]
        entries = read()
        if self.wanted.kind not in (None, self.kind):
            raise ValueError(f"{self.path} holds {self.kind}, not {self.wanted.kind}.")
        return entries

    def _npy(self) -> list[Entry]:
        self.kind = "vectors"
        self._refuse("column", "key_column", "label_column")
        try:
            # Mapped: rows are read where they lie. Objects would have to be unpickled, and are not.
            array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{self.path} is no .npy of plain numbers ({error}).") from error
        if array.ndim != 2 or not array.size:
            raise ValueError(f"{self.path} is of shape {array.shape}, not (items, numbers of a vector).")
        if not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{self.path} holds {array.dtype}; vectors are float16, float32 or float64.")
        keys = read_keys(Path(self.wanted.keys), len(array)) if self.wanted.keys else None
        return self._rows(len(array), keys, None, lambda i: to_npy(np.asarray(array[i])))

    def _parquet(self) -> list[Entry]:
        self._refuse("keys")
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise ValueError(".parquet needs pyarrow. Install it: pip install 'mmtok[vector]'") from error
        try:
            file = pq.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path} is no Parquet file that can be read ({error}).") from error
        schema = file.schema_arrow
        column = self._content_column(schema.names)
        of = schema.field(column).type
        key, label = self._other_columns(schema.names)
        try:
            table = file.read(columns=[one for one in (column, key, label) if one])
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{self.path} is damaged ({error}).") from error
        cells = table[column].combine_chunks()
        keys, labels = (table[one].to_pylist() if one else None for one in (key, label))
        if pa.types.is_string(of) or pa.types.is_large_string(of):
            self.kind = "text"
            return self._rows(len(table), keys, labels, lambda i: _encoded(cells[i].as_py(), i))
        if not any(test(of) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)):
            raise ValueError(f"column {column} of {self.path} is {of}: neither texts nor lists of numbers.")
        if not pa.types.is_floating(of.value_type):
            raise ValueError(f"column {column} of {self.path} holds {of.value_type}; vectors are float16 to float64.")
        self.kind = "vectors"
        return self._rows(len(table), keys, labels, partial(_arrow_vector, cells, _common_width(cells)))

    def _csv(self) -> list[Entry]:
        self.kind = "text"
        self._refuse("keys")
        # Bytes that are no UTF-8 survive into their cell, so that one bad row does not cost the others.
        content = self.path.read_bytes().decode("utf-8-sig", "surrogateescape")
        csv.field_size_limit(LARGEST_CELL)
        try:
            header, *rows = csv.reader(io.StringIO(content, newline=""))
        except ValueError as error:
            raise ValueError(f"{self.path} is empty. Its first line names the columns.") from error
        except csv.Error as error:
            raise ValueError(f"{self.path} is no .csv that can be read ({error}).") from error
        rows = [row for row in rows if row]
        return self._texts(header, [dict(zip(header, row, strict=False)) for row in rows])

    def _jsonl(self) -> list[Entry]:
        self.kind = "text"
        self._refuse("keys")
        rows: list[Any] = []
        for number, line in enumerate(self.path.read_bytes().splitlines(), 1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line.decode("utf-8-sig", "surrogateescape")))
            except (ValueError, RecursionError) as error:
                rows.append(f"line {number} is no JSON ({error})")
        named = [row for row in rows if isinstance(row, dict)]
        if not named:
            raise ValueError(f"{self.path} holds no line with a JSON object.")
        return self._texts(list(dict.fromkeys(name for row in named for name in row)), rows)

    def _texts(self, columns: Sequence[str], rows: Sequence[Any]) -> list[Entry]:
        column = self._content_column(columns)
        key, label = self._other_columns(columns)

        def cell(i: int) -> bytes:
            if not isinstance(rows[i], dict):
                raise ValueError(str(rows[i]) if isinstance(rows[i], str) else f"row {i} is no JSON object")
            return _encoded(rows[i].get(column), i)

        def of(name: str | None) -> list[Any] | None:
            return [row.get(name) if isinstance(row, dict) else None for row in rows] if name else None

        return self._rows(len(rows), of(key), of(label), cell)

    def _content_column(self, columns: Sequence[str]) -> str:
        if self.wanted.column:
            return self._known(self.wanted.column, columns, "column")
        kinds = [self.wanted.kind] if self.wanted.kind in CONTENT_COLUMNS else list(CONTENT_COLUMNS)
        usual = [name for kind in kinds for name in CONTENT_COLUMNS[kind]]
        found = [name for name in usual if name in columns]
        if not found:
            names = ", ".join(columns)
            raise ValueError(f"{self.path} has no column {' or '.join(usual)}, but {names}. Name it: --column NAME.")
        return found[0]

    def _other_columns(self, columns: Sequence[str]) -> tuple[str | None, str | None]:
        wanted, usual = self.wanted, next((name for name in KEY_COLUMNS if name in columns), None)
        key = self._known(wanted.key_column, columns, "key-column") if wanted.key_column else usual
        return key, self._known(wanted.label_column, columns, "label-column") if wanted.label_column else None

    def _known(self, name: str, columns: Sequence[str], option: str) -> str:
        if name not in columns:
            raise ValueError(f"{self.path} has no column for --{option} {name}.{suggest(name, columns)}")
        return name

    def _refuse(self, *options: str) -> None:
        for name in options:
            if getattr(self.wanted, name):
                spelled = name.replace("_", "-")
                raise ValueError(f"--{spelled} says nothing about a .{self.extension}: {self.path}.")

    def _rows(self, count: int, keys: Sequence[Any] | None, labels: Sequence[Any] | None, cell: Cell) -> list[Entry]:
        """Entries of the rows. A key that came before makes one that is left out, and says where it came."""
        member = "npy" if self.kind == "vectors" else "txt"
        entries, first = [], dict[str, int]()
        for i in range(count):
            key = f"{i:08d}" if keys is None else "" if keys[i] is None else str(keys[i]).strip()
            label = str(labels[i]) if labels is not None and labels[i] is not None else None
            read: Callable[[], dict[str, bytes]] = partial(_read, cell, member, i)
            if not key:
                key, read = f"row {i}", partial(_fail, "it has no key")
            elif key in first:
                key, read = f"{key} (row {i})", partial(_fail, f"row {first[key]} has this key already")
            else:
                first[key] = i
            entries.append(Entry(key, group=key, read=read, label=label))
        if not entries:
            raise ValueError(f"{self.path} holds no row.")
        return entries


def read_keys(path: Path, count: int) -> list[str]:
    """Keys of `count` rows: a text file with one a line.

    Raises:
        ValueError: it cannot be read, or has another number of lines.
    """
    try:
        keys = path.read_bytes().decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the keys cannot be read from {path}: {error}.") from error
    if len(keys) != count:
        raise ValueError(f"{path} has {len(keys):,} lines, and there are {count:,} vectors. Give one key a line.")
    return keys


def _read(cell: Cell, member: str, row: int) -> dict[str, bytes]:
    return {member: cell(row)}


def _fail(reason: str) -> dict[str, bytes]:
    raise ValueError(reason)


def _encoded(text: Any, row: int) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"row {row} has no text")
    return text.encode("utf-8", "surrogateescape")


def _arrow_vector(cells: Any, width: int, row: int) -> bytes:
    cell = cells[row]
    if not cell.is_valid:
        raise ValueError(f"row {row} has no vector")
    # A missing number becomes NaN, and is found with the others.
    vector = cell.values.to_numpy(zero_copy_only=False)
    if len(vector) != width:
        raise ValueError(f"row {row} has {len(vector)} numbers, most others {width}")
    return to_npy(vector)


def _common_width(cells: Any) -> int:
    """The length of most lists: the others are left out by name."""
    import pyarrow.compute as pc

    counted = pc.value_counts(pc.list_value_length(cells).drop_null()).to_pylist()
    return max(counted, key=lambda one: (one["counts"], one["values"]))["values"] if counted else 0
