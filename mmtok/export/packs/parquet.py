"""Parquet, for `datasets` of Hugging Face and everything that reads Arrow: input_ids, lengths and keys of each row.

`lengths` are those of the documents in a row: with them a trainer keeps attention inside a document, begins positions
anew and leaves the padding out of its loss. Of a parallel layout, input_ids are lists of rows, one a level. A
vocabulary with tokens that are only read gives `labels` too: the ids, with -100 where nothing is to be learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmtok.export.pack import Facts, Row, is_read, needs

TOKENS = 1 << 24
"""Ids of a file, about."""
IGNORED = -100
"""What losses of PyTorch and transformers leave out."""
GROUP = 1 << 20
"""Ids of a row group, about: what a reader holds at once."""


class Writer:
    """Writes train-00000.parquet, ..., and a card that makes them one data set."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.arrow = needs("parquet")
        import pyarrow.parquet

        self.parquet = pyarrow.parquet
        self.facts, self.folder, self.files, self.written = facts, folder, 0, 0
        self.rows: list[Row] = []
        self.held = 0
        self.file: Any = None
        numbers = self.arrow.list_(self.arrow.int32())
        ids = self.arrow.list_(numbers) if facts.layout == "parallel" else numbers
        keys = self.arrow.list_(self.arrow.string())
        columns = [("input_ids", ids), ("lengths", numbers), ("keys", keys)]
        self.schema = self.arrow.schema(columns + ([("labels", numbers)] if facts.only_read else []))
        # Of several kinds of file in a folder, `datasets` would have to guess which are the data.
        card = "---\nconfigs:\n- config_name: default\n  data_files: train-*.parquet\n---\n"
        (folder / "README.md").write_text(
            f"{card}\nWritten by `mmtok pack`; what the ids are is in pack.json.\n", encoding="utf-8"
        )

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.held += row.ids.size
        if self.held >= GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self.file is not None:
            self.file.close()

    def _labels(self, row: Row) -> np.ndarray:
        """Ids, and -100 at padding and at what is only read."""
        padding = np.arange(row.ids.size) >= sum(row.lengths)
        return np.where(padding | is_read(row.ids, self.facts), IGNORED, row.ids)

    def _flush(self) -> None:
        if not self.rows:
            return
        if self.file is None:
            path = self.folder / f"train-{self.files:05d}.parquet"
            self.file = self.parquet.ParquetWriter(path, self.schema, compression="zstd")
            self.files += 1
        columns = {
            "input_ids": [list(row.ids) if row.ids.ndim > 1 else row.ids for row in self.rows],
            "lengths": [row.lengths for row in self.rows],
            "keys": [row.keys for row in self.rows],
        }
        if self.facts.only_read:
            columns["labels"] = [self._labels(row) for row in self.rows]
        self.file.write_table(self.arrow.table(columns, schema=self.schema))
        self.written += self.held
        self.rows, self.held = [], 0
        if self.written >= TOKENS:
            self.file.close()
            self.file, self.written = None, 0
