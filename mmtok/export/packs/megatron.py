r"""Megatron-LM's indexed dataset, which NeMo reads too: `train.bin` with the ids, `train.idx` with where each row is.

    9 bytes   MMIDIDX\0\0; all numbers little-endian
    8         version, 1
    1         type of the ids: 4 int32, 8 uint16
    8, 8      sequences, entries of the document index
    4 each    lengths of the sequences, int32
    8 each    where they begin in the .bin, in bytes, int64
    8 each    first sequence of each document, and the number of sequences, int64

A row is a sequence and a document. Megatron takes uint16 for vocabularies of less than 65,500 ids, int32 for others.
Give `PATH/train` as --data-path, without suffix.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from mmtok.export.pack import Facts, Row

NAME = "train"
MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
TYPES = {"int32": 4, "uint16": 8}


class Writer:
    """Writes both files."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder, self.facts = folder, facts
        self.lengths: list[int] = []
        self.file = (folder / f"{NAME}.bin").open("wb")

    def add(self, row: Row) -> None:
        self.lengths.append(len(row.ids))
        self.file.write(row.ids.astype(row.ids.dtype.newbyteorder("<")).tobytes())

    def close(self) -> None:
        self.file.close()
        lengths = np.array(self.lengths, dtype="<i4")
        size = np.dtype(self.facts.dtype).itemsize
        ends = np.cumsum(lengths, dtype="<i8") * size
        begins = np.concatenate([np.zeros(1, "<i8"), ends[:-1]])
        with (self.folder / f"{NAME}.idx").open("wb") as file:
            file.write(MAGIC + struct.pack("<QB", VERSION, TYPES[self.facts.dtype]))
            file.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
            file.write(lengths.tobytes() + begins.astype("<i8").tobytes())
            file.write(np.arange(len(lengths) + 1, dtype="<i8").tobytes())
