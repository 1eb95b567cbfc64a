"""LitData's stream of tokens, for `StreamingDataset(OUT, item_loader=TokensLoader(block_size=LENGTH))`.

A block is a row: chunks hold whole rows. LitData writes the files itself; only the time of writing is taken out of its
index, so that equal rows give equal files.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mmtok.export.pack import Facts, Row, needs

CHUNK = 64 << 20


class Writer:
    """Writes chunk-0-0.bin, ... and index.json."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        needs("litdata")
        from litdata.streaming.item_loader import TokensLoader
        from litdata.streaming.writer import BinaryWriter

        self.folder, self.rows = folder, 0
        self.writer = BinaryWriter(str(folder), chunk_bytes=CHUNK, item_loader=TokensLoader(block_size=facts.length))

    def add(self, row: Row) -> None:
        self.writer[self.rows] = torch.from_numpy(row.ids)
        self.rows += 1

    def close(self) -> None:
        self.writer.done()
        self.writer.merge()
        path = self.folder / "index.json"
        index = json.loads(path.read_text(encoding="utf-8"))
        index.pop("updated_at", None)
        path.write_text(json.dumps(index, sort_keys=True), encoding="utf-8")
