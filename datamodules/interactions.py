"""Who took what, in order of time: readers of the files that studies of recommendation use.

Amazon 2014 5-core (McAuley et al. 2015; `reviews_Beauty_5.json.gz`, some of whose lines are Python rather than JSON),
MovieLens (Harper and Konstan 2015; `ratings.dat`, `ratings.csv`, `u.data`), and our own `interactions.csv` with the
header `user,item,time`. Any of them may be packed with gzip. Ratings are not read: an interaction is an interaction.
"""

from __future__ import annotations

import ast
import csv
import gzip
import json
import math
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmtok.schema import ConfigError

LONGEST = 1 << 22
"""Bytes of a line at most: a reviewer's essay has some thousands, and a parser of Python must not be fed more."""
SHORTEST = 3
"""Interactions of a user that leaving out the last for the test and the one before for validation needs."""
FORMATS = "reviews_*_5.json[.gz], ratings.dat, ratings.csv, u.data, or a .csv with the header user,item,time"


class Interaction(NamedTuple):
    user: str
    item: str
    time: float
    """Of any unit: only the order counts, and equal times keep the file's order."""


@dataclass(frozen=True)
class Interactions:
    """Sequences of items, one a user."""

    users: tuple[str, ...]
    """In the order in which they first occur."""
    sequences: tuple[tuple[str, ...], ...]
    """Keys of each user's items, oldest first."""

    def items(self) -> set[str]:
        """Every item that occurs."""
        return {item for sequence in self.sequences for item in sequence}

    def __len__(self) -> int:
        return sum(map(len, self.sequences))

    def without(self, items: Collection[str]) -> Interactions:
        """The same without some items; users who had nothing else are gone."""
        return self._of((user, tuple(one for one in own if one not in items)) for user, own in self._pairs())

    def core(self, k: int) -> Interactions:
        """The k-core: what is left once users and items of fewer than k interactions are taken out, again and again
        until there is none. It is unique, and empty where the data is too sparse.
        """
        kept = self
        while True:
            counts = Counter(item for sequence in kept.sequences for item in sequence)
            rare = {item for item, count in counts.items() if count < k}
            smaller = kept.without(rare)
            smaller = self._of(pair for pair in smaller._pairs() if len(pair[1]) >= k)
            if len(smaller) == len(kept):
                return smaller
            kept = smaller

    def at_least(self, length: int) -> Interactions:
        """Users of so many interactions or more."""
        return self._of(pair for pair in self._pairs() if len(pair[1]) >= length)

    def _pairs(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        return zip(self.users, self.sequences, strict=True)

    @staticmethod
    def _of(pairs: Iterable[tuple[str, tuple[str, ...]]]) -> Interactions:
        kept = [pair for pair in pairs if pair[1]]
        return Interactions(tuple(user for user, _ in kept), tuple(sequence for _, sequence in kept))


def read_interactions(path: str | Path) -> Interactions:
    """Read a file of a known format; see the module.

    Raises:
        ConfigError: the file is missing, empty, damaged or of another format; with the line.
    """
    path = Path(path)
    reader = _reader_of(path)
    events: dict[str, list[tuple[float, str]]] = {}
    for one in reader(path):
        events.setdefault(one.user, []).append((one.time, one.item))
    if not events:
        raise ConfigError(f"{path} holds no interactions.")
    for own in events.values():
        own.sort(key=lambda event: event[0])  # stable, and by time alone: keys must not decide between equal times
    return Interactions(tuple(events), tuple(tuple(item for _, item in own) for own in events.values()))


def _reader_of(path: Path) -> Callable[[Path], Iterator[Interaction]]:
    name = path.name.removesuffix(".gz")
    if not path.is_file():
        raise ConfigError(f"there is no file {path}. Interactions come as {FORMATS}.")
    if name.endswith((".json", ".jsonl")):
        return _reviews
    if name.endswith(".csv"):
        return _table
    if name.endswith(".dat"):
        return lambda path: _separated(path, "::")
    if name.endswith(".data"):
        return lambda path: _separated(path, "\t")
    raise ConfigError(f"{path} is of no format known for interactions: {FORMATS}.")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines with something on them."""
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(LONGEST + 1)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ConfigError(
                    f"{path}, line {number}: the gzip is damaged or cut short. Fetch it again."
                ) from error
            if not line:
                return
            if len(line) > LONGEST:
                raise ConfigError(
                    f"{path}, line {number}: more than {LONGEST:,} bytes. This is no list of interactions."
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            except UnicodeDecodeError as error:
                raise ConfigError(f"{path}, line {number}: this is no UTF-8 (byte {error.start}).") from error
            if text.strip():
                yield number, text


def _reviews(path: Path) -> Iterator[Interaction]:
    """A dict a line, in JSON or as Python writes one."""
    for number, line in _lines(path):
        try:
            review = json.loads(line)
        except (ValueError, RecursionError):
            review = _literal(path, number, line)
        if not isinstance(review, dict):
            raise ConfigError(f"{path}, line {number}: a review is a dict, this is {type(review).__name__}.")
        names = ("reviewerID", "asin", "unixReviewTime")
        if missing := [name for name in names if name not in review]:
            raise ConfigError(
                f"{path}, line {number}: no {', '.join(missing)}. Reviews of 2014 have {', '.join(names)}."
            )
        yield _interaction(path, number, *(review[name] for name in names))


def _literal(path: Path, number: int, line: str) -> object:
    """Literals alone: `eval`, which the data's own page advises, would run what a stranger wrote."""
    try:
        return ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ConfigError(f"{path}, line {number}: neither JSON nor a Python dict of literals.") from error


def _table(path: Path) -> Iterator[Interaction]:
    """CSV with a header, ours or MovieLens'."""
    lines = _lines(path)
    numbers: list[int] = []

    def texts() -> Iterator[str]:
        for number, line in lines:
            numbers.append(number)
            yield line

    rows = csv.reader(texts(), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
    except csv.Error as error:
        raise ConfigError(f"{path}, line {numbers[-1]}: no CSV: {error}.") from error
    for names in (("user", "item", "time"), ("userId", "movieId", "timestamp")):
        if set(names) <= set(header):
            places = [header.index(name) for name in names]
            break
    else:
        raise ConfigError(
            f"{path}, line 1: the header is '{','.join(header)}'. It needs user,item,time or userId,movieId,timestamp."
        )
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ConfigError(f"{path}, line {numbers[-1]}: no CSV: {error}.") from error
        if row is None:
            return
        if len(row) != len(header):
            raise ConfigError(f"{path}, line {numbers[-1]}: {len(row)} fields, and the header has {len(header)}.")
        yield _interaction(path, numbers[-1], *(row[place] for place in places))


def _separated(path: Path, mark: str) -> Iterator[Interaction]:
    """User, item, rating and time, without a header."""
    for number, line in _lines(path):
        fields = line.split(mark)
        if len(fields) != 4:
            raise ConfigError(
                f"{path}, line {number}: {len(fields)} fields between {mark!r}, and user, item, rating, time are 4."
            )
        yield _interaction(path, number, fields[0], fields[1], fields[3])


def _interaction(path: Path, number: int, user: object, item: object, time: object) -> Interaction:
    if not str(user).strip() or not str(item).strip():
        raise ConfigError(f"{path}, line {number}: {'no item' if str(user).strip() else 'no user'}.")
    try:
        when = float(str(time))
    except ValueError:
        when = math.nan
    if not math.isfinite(when):
        raise ConfigError(f"{path}, line {number}: the time {time!r} is no number.")
    return Interaction(str(user).strip(), str(item).strip(), when)
