"""A run's `metrics.csv`, by column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Log:
    """What a run wrote down while it trained."""

    columns: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Name -> (step, value), where there was one; no NaN, no infinity."""

    @classmethod
    def read(cls, path: Path) -> Log:
        """The log of a run; an empty one where there is no file, as of a tokenizer that was not trained here.

        Raises:
            ValueError: it is damaged; names the line.
        """
        if not path.is_file():
            return cls()
        columns: dict[str, list[tuple[int, float]]] = {}
        raw = path.read_bytes()
        try:
            reader = csv.DictReader(io.StringIO(raw.decode("utf-8"), newline=""), strict=True)
            for row in reader:
                step = int(row["step"])
                for name, text in row.items():
                    if name != "step" and text and math.isfinite(value := float(text)):
                        columns.setdefault(name, []).append((step, value))
        except UnicodeDecodeError as error:
            raise _damaged(path, raw.count(b"\n", 0, error.start) + 1, error) from error
        except (csv.Error, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, reader.line_num, error) from error
        return cls(columns)

    @property
    def last_step(self) -> int:
        """0 of an empty log."""
        return max((points[-1][0] for points in self.columns.values()), default=0)

    def last(self, name: str) -> float | None:
        """The last value of a column."""
        points = self.columns.get(name)
        return points[-1][1] if points else None

    def spans(self, name: str) -> list[tuple[int, int | None]]:
        """Of a column of 0 and 1: (the step it rose at, the one it fell at or None)."""
        found: list[tuple[int, int | None]] = []
        rose: int | None = None
        for step, value in self.columns.get(name, []):
            if value and rose is None:
                rose = step
            elif not value and rose is not None:
                found.append((rose, step))
                rose = None
        return found if rose is None else [*found, (rose, None)]


def _damaged(path: Path, line: int, error: Exception) -> ValueError:
    return ValueError(f"{path} is damaged, line {line}: {error}. Continue the run, which cuts it back.")
