"""Scalars on their way out: what to log, a window of them on the device, and `metrics.csv`.

A logging window costs one packed all-reduce and one read from the device, however many scalars there are; a step costs
neither. Where the scalars go is `loggers.py`.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import torch
from torch import Tensor

from mmtok.quantizers.usage import UsageConfig
from mmtok.schema import ConfigError
from mmtok.training.alarms import AlarmConfig


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """A Weights & Biases run. Its id is made once and kept in the run directory, so that a restart continues it."""

    project: str = "mmtok"
    """Project the run appears in."""
    mode: Literal["online", "offline"] = "online"
    """offline writes into the run directory, to be uploaded later. WANDB_MODE in the environment takes precedence."""
    name: str | None = None
    """Name shown; by default the run directory's last two parts."""
    entity: str | None = None
    """User or team; by default the one logged in."""
    tags: tuple[str, ...] = ()
    """Labels to filter by."""
    artifacts: Literal["none", "metadata", "checkpoints"] = "metadata"
    """What is logged as artifacts: nothing; configuration, data and checkpoints as small descriptions; or checkpoints
    whole, optimiser included, every one that is saved."""
    timeout: float = 60.0
    """Seconds that a start and an end wait for the server at most. A start goes on offline then, under the same id."""

    def __post_init__(self) -> None:
        if self.timeout <= 0:
            raise ConfigError(f"log.wandb.timeout={self.timeout} must be more than 0 seconds.")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What a person sees, how often, and where. `metrics.csv` is always written."""

    every_steps: int = 50
    """Updates between two lines of the log; scalars are means over the window."""
    usage_every_steps: int = 100
    """Updates between two readings of codebook usage; a window with too few tokens a code is carried on."""
    media_every_steps: int = 1000
    """Updates between two reconstruction grids, after those at powers of two; 0 draws none."""
    media_items: int = 8
    """Validation samples shown, always the same, the first of the set."""
    media_keep: int = 60
    """Grids kept in `media/`; the oldest beyond the powers of two go first."""
    lengths: bool = True
    """Validate codes of a few lengths too, where training cuts them (`nested`, `dropout`): three or four more passes
    of the decoder. Of no effect elsewhere."""
    tensorboard: bool = True
    """Write TensorBoard events into `tensorboard/` of the run directory."""
    wandb: WandbConfig | None = None
    """Weights & Biases; absent means not used. See the layers logger/wandb and logger/wandb_offline."""
    progress: bool = True
    """Print the line of progress."""
    usage: UsageConfig = field(default_factory=UsageConfig)
    """When a codebook counts as collapsed, partly used or skewed, and what is done about it."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """When to speak up about blur and semantic drift."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "usage_every_steps", "media_items", "media_keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"log.{name}={getattr(self, name)} must be at least 1.")
        if self.media_every_steps < 0:
            raise ConfigError(f"log.media_every_steps={self.media_every_steps} must be 0 (no grids) or more.")


class ScalarBuffer:
    """Weighted means of named scalars over a window, kept where the scalars are until the window ends.

    Every rank must add the same names in a window, though not equally often.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._weights: dict[tuple[str, ...], Tensor | float] = {}
        self._host: dict[str, tuple[float, float]] = {}

    def add(self, values: Mapping[str, Tensor | float], weight: Tensor | float = 1.0) -> None:
        """Take scalars in; nothing is read back.

        Args:
            values: scalars by name, tensors on any one device or plain numbers.
            weight: what they count for in the mean (samples behind them, say); where it is known on the device alone, a
                0-d tensor there, and all values are tensors too.
        """
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        for name, value in values.items():  # in their order, which is every rank's; a set's differs between processes
            if name not in tensors:
                assert not isinstance(weight, Tensor), f"the weight of '{name}' would have to be read from the device"
                total, count = self._host.get(name, (0.0, 0.0))
                self._host[name] = (total + float(value) * weight, count + weight)
        if not tensors:
            return
        # Names that come together stay together: one stack and one addition a call, not one a scalar.
        names = tuple(tensors)
        packed = torch.stack([value.detach().reshape(()).float() for value in tensors.values()])
        known = self._sums.get(names)
        self._sums[names] = packed * weight if known is None else known.add_(packed * weight)
        self._weights[names] = self._weights.get(names, 0.0) + weight

    def state_dict(self) -> dict[str, Any]:
        """The window so far, on the CPU, for a checkpoint."""
        sums = [[list(names), float(self._weights[names]), total.cpu()] for names, total in self._sums.items()]
        return {"sums": sums, "host": {name: list(pair) for name, pair in self._host.items()}}

    def add_state(self, state: Mapping[str, Any], share: int = 1) -> None:
        """Add a saved window to this one; with `share` 0 its names alone."""
        for listed, weight, total in state["sums"]:
            names = tuple(listed)
            known = self._sums.get(names)
            self._sums[names] = total * share if known is None else known + total * share
            self._weights[names] = self._weights.get(names, 0.0) + weight * share
        for name, (total, weight) in state["host"].items():
            before, count = self._host.get(name, (0.0, 0.0))
            self._host[name] = (before + total * share, count + weight * share)

    def to(self, device: torch.device) -> None:
        """Move the window to where scalars will come from."""
        self._sums = {names: total.to(device) for names, total in self._sums.items()}

    def flush(self, world: int = 1) -> dict[str, float]:
        """Means over the window and all ranks; empties the buffer.

        Args:
            world: ranks that call this together; above 1 the default process group reduces.
        """
        columns = [*self._host, *(name for names in self._sums for name in names)]
        if not columns and world == 1:
            return {}
        packed = self._pack(columns)
        if world > 1:
            torch.distributed.all_reduce(packed)
        read = packed.tolist()
        self._sums, self._weights, self._host = {}, {}, {}
        assert read[-1] == world * _checksum(columns), f"ranks logged different scalars; this one {sorted(columns)}"
        totals: dict[str, tuple[float, float]] = {}
        for i, name in enumerate(columns):  # a name may have come alone and in company
            total, count = totals.get(name, (0.0, 0.0))
            totals[name] = (total + read[i], count + read[len(columns) + i])
        return {name: total / count for name, (total, count) in totals.items() if count}

    def _pack(self, columns: list[str]) -> Tensor:
        """Sums, then weights, then a checksum of the names, as one vector on the scalars' device."""
        device = next((sums.device for sums in self._sums.values()), _reduce_device())
        # float32 has too few digits for long windows; MPS has nothing wider, and one process.
        dtype = torch.float32 if device.type == "mps" else torch.float64
        host = torch.tensor([*self._host.values()], dtype=dtype, device=device).reshape(-1, 2)
        sums = [part.to(dtype) for part in self._sums.values()]
        weights = [
            torch.as_tensor(self._weights[names], dtype=dtype, device=device).expand(len(names)) for names in self._sums
        ]
        names = torch.tensor([_checksum(columns)], dtype=dtype, device=device)
        return torch.cat([host[:, 0], *sums, host[:, 1], *weights, names])


def _checksum(names: list[str]) -> int:
    """12 bits of the names in order: small enough to stay exact when summed over thousands of ranks."""
    return crc32("\n".join(names).encode()) & 0xFFF


def _reduce_device() -> torch.device:
    """Where a vector must lie to be reduced, when no scalar says so."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
    return torch.device("cpu")


class MetricsFile:
    """`metrics.csv`: one row a logged step, appended across restarts; new columns are added as they come.

    A row written twice for a step is merged. Rows that a crash left torn are dropped when the file is opened.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.columns = ["step"]
        self._last: dict[str, str] | None = None
        self._offset = 0
        if self.path.is_file():
            self._rewrite(self._read())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to the row of a step, which is the last row or a new one."""
        row = {"step": str(step)} | {name: _text(value) for name, value in values.items()}
        if self._last is not None and self._last["step"] == row["step"]:
            row = self._last | row
        elif self.path.is_file():
            self._offset = self.path.stat().st_size
        new = [name for name in row if name not in self.columns]
        if new or not self.path.is_file():
            before = [known for known in self._read() if known["step"] != row["step"]]
            self.columns += new
            self._rewrite([*before, row])
            return
        with self.path.open("r+b") as file:
            file.seek(self._offset)
            file.write(self._line(row.get(name, "") for name in self.columns))
            file.truncate()
        self._last = row

    def cut(self, step: int) -> None:
        """Drop the rows after `step`: a resumed run writes them again."""
        if self.path.is_file():
            self._rewrite([row for row in self._read() if int(row["step"]) <= step])

    def rows(self) -> list[tuple[int, dict[str, float]]]:
        """What the file holds: steps and their values."""
        return [
            (int(row["step"]), {name: float(text) for name, text in row.items() if text and name != "step"})
            for row in self._read()
        ]

    def _read(self) -> list[dict[str, str]]:
        """Whole rows of the file; sets the columns."""
        if not self.path.is_file():
            return []
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]  # what follows the last line end was being written when the job died
        header, *rows = [*csv.reader(io.StringIO(whole.replace("\0", "")))] or [["step"]]
        self.columns = header if header and header[0] == "step" else ["step"]
        fitting = [row for row in rows if len(row) == len(self.columns) and row[0].isdigit()]
        return [dict(zip(self.columns, row, strict=True)) for row in fitting]

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        """The whole file anew, by a rename, so that a crash leaves the old one or the new one."""
        head = self._line(self.columns)
        lines = [self._line(row.get(name, "") for name in self.columns) for row in rows]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".csv.tmp")
        draft.write_bytes(head + b"".join(lines))
        os.replace(draft, self.path)
        self._last = rows[-1] if rows else None
        self._offset = len(head) + sum(map(len, lines[:-1]))

    @staticmethod
    def _line(cells: object) -> bytes:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(cells)  # type: ignore[arg-type]
        return buffer.getvalue().encode()


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.8g}"


def need(package: str, setting: str, remedy: str) -> None:
    """A clear refusal where an optional package is absent.

    Raises:
        ConfigError: with what to do.
    """
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ConfigError(f"{setting} needs the package '{package}'. Run: pip install {package}; or {remedy}.")
