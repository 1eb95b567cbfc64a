"""What W&B has written into a run directory, read back: a piece for every start, each with the rows it holds.

A piece is a `.wandb` file, records of protobuf in the frames of a LevelDB log. W&B writes it in blocks of 32 KiB, so a
process that is killed leaves rows out, hours of them where little is logged. Only the file itself knows what it holds.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

STEP = "trainer/global_step"
"""The x-axis in W&B, named as Lightning names it."""
STAGED = "artifacts"
"""The folder of a piece in which files of artifacts wait to be uploaded, so that both reach whoever uploads."""
AXES = ("restart", "samples", "epoch")
"""Other x-axes, in every row."""

_HEADER = 7
"""Bytes before the first frame, and of the head of a frame."""
_BLOCK = 32768
_WHOLE, _LAST = 1, 4


class Row(NamedTuple):
    """One row of the history, without its values."""

    step: int
    """Updates."""
    at: int
    """W&B's own count of rows: in the run where the piece was written online, in the piece where offline."""
    restart: int
    names: tuple[str, ...]


class Piece(NamedTuple):
    """What one start of a run wrote."""

    file: Path
    run_id: str
    started: float
    """Seconds since the epoch."""
    rows: tuple[Row, ...]
    artifacts: tuple[str, ...]
    """`name:alias` of each artifact it logs."""
    ended: bool
    """Whether it was closed."""
    whole: int
    """Bytes up to the end of the last whole record."""

    @property
    def online(self) -> bool:
        """Whether it is the copy of what went to the server at once."""
        return not self.file.parent.name.startswith("offline-")

    @property
    def marker(self) -> Path:
        """The file that says that all of it is on the server: W&B's own, which `wandb sync` looks at too."""
        return self.file.with_name(f"{self.file.name}.synced")

    def uploaded(self) -> None:
        """Note that all of it is on the server."""
        self.marker.touch()
        shutil.rmtree(self.file.with_name(STAGED), ignore_errors=True)

    @property
    def steps(self) -> str:
        """The updates it covers, for a person."""
        steps = [row.step for row in self.rows]
        return f"steps {min(steps):,} to {max(steps):,}" if steps else "no rows"


def read_pieces(run_dir: Path) -> list[Piece]:
    """The pieces of a run directory, the oldest first. Those that were cut off before they named a run are left out."""
    found = [read_piece(file) for file in (run_dir / "wandb").glob("*run-*/run-*.wandb")]
    return sorted((piece for piece in found if piece is not None), key=lambda piece: piece.started)


def read_piece(file: Path) -> Piece | None:
    """One piece, as far as it is whole; None where not even the run is named."""
    run: Any = None
    rows: list[Row] = []
    artifacts: list[str] = []
    ended, whole = False, 0
    for record, end in records(file.read_bytes()):
        whole = end
        match record.WhichOneof("record_type"):
            case "run":
                run = run or record.run
            case "history":
                # A picture or a histogram comes in parts, under a key each.
                row = _row({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
                rows += [row] if row else []
            case "artifact":
                artifacts += [f"{record.artifact.name}:{alias}" for alias in record.artifact.aliases]
            case "exit":
                ended = True
    if run is None:
        return None
    return Piece(file, run.run_id, run.start_time.ToNanoseconds() / 1e9, (*rows,), (*artifacts,), ended, whole)


def records(data: bytes) -> Iterator[tuple[Any, int]]:
    """The protobuf records of a `.wandb` file, each with the byte it ends at, up to the first that is not whole."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    at, record = _HEADER, b""
    while at + _HEADER <= len(data):
        if _BLOCK - at % _BLOCK < _HEADER:  # no room for the head of a frame: the block is filled up
            at += _BLOCK - at % _BLOCK
            continue
        checksum, size, kind = struct.unpack_from("<IHB", data, at)
        body = data[at + _HEADER : at + _HEADER + size]
        if zlib.crc32(body, zlib.crc32(bytes([kind]))) != checksum:
            return
        record += body
        at += _HEADER + size
        if kind in (_WHOLE, _LAST):
            yield Record.FromString(record), at
            record = b""


def _row(items: dict[str, str]) -> Row | None:
    """A row of ours; None for another's."""
    if STEP not in items:
        return None
    names = tuple(name for name in items if name not in (STEP, *AXES) and not name.startswith("_"))
    step, at, restart = (int(json.loads(items.get(name, "0"))) for name in (STEP, "_step", "restart"))
    return Row(step, at, restart, names)


def logged(pieces: Sequence[Piece], arrived: int | None = None) -> dict[str, int]:
    """The last step at which each name was logged; what is logged at or below it again would stand twice.

    A row that was written on its way to the server counts if it came there: where the next piece goes on before it, it
    did not. What is written offline counts, since `mmtok wandb-sync` brings it there.

    Args:
        pieces: of one run, the oldest first.
        arrived: rows the server has, where it was asked. None counts all of the last piece.
    """
    online = [piece for piece in pieces if piece.online and piece.rows]
    bounds: dict[Path, float] = {one.file: after.rows[0].at for one, after in pairwise(online)}
    if online and arrived is not None:
        bounds[online[-1].file] = arrived
    last: dict[str, int] = {}
    for piece in pieces:
        bound = bounds.get(piece.file, math.inf)
        for row in piece.rows:
            if row.at < bound:
                last |= {name: max(row.step, last.get(name, -1)) for name in row.names}
    return last
