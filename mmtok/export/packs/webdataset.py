"""WebDataset tars, and a shard set of ours besides: per row `ids.npy` and `json` with lengths and keys."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from datamodules.writer import ShardWriter
from mmtok.export.pack import Facts, Row


class Writer:
    """Writes train-000000.tar, ... with their indexes and manifest."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.writer = ShardWriter(folder, kind="sequences", split="train", source=", ".join(facts.sources))
        self.rows = 0

    def add(self, row: Row) -> None:
        file = io.BytesIO()
        np.save(file, row.ids, allow_pickle=False)
        said = json.dumps({"lengths": row.lengths, "keys": row.keys}, separators=(",", ":"))
        self.writer.add(f"{self.rows:09d}", {"ids.npy": file.getvalue(), "json": said.encode()})
        self.rows += 1

    def close(self) -> None:
        self.writer.finish()
