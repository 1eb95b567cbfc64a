"""What may follow a sequence of text and codes, so that every item a model writes can be decoded.

Sampling without it leaves the blocks of codes sooner or later (Emu3 asks for such a constraint, too). Text is free
outside items; inside one only the level, the row or the end that its layout wants is. What is allowed is a few slices
of ids, so that a step costs the same with 8k and with 65k codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from mmtok.export.given import grid_of
from mmtok.export.header import DIGITS, MAX_DIGITS
from mmtok.export.layout import Place, delays_of
from mmtok.export.token_spec import TokenSpec

Ranges = list[tuple[int, int]]
"""Ids that are allowed, each from the first to before the second."""


class Grammar:
    """Which ids may come next, for sequences that begin with any text and items.

    An instance is a logits processor of transformers: `processor(input_ids, scores) -> scores`.
    """

    def __init__(
        self,
        text: int,
        specs: Sequence[TokenSpec],
        places: Sequence[Place],
        begun: Sequence[str] = (),
        *,
        grid: tuple[int, int] | None = None,
        levels: int | None = None,
        positions: int | None = None,
    ) -> None:
        """Of a vocabulary's text, tokenizers and places.

        Args:
            text: ids below are the text's.
            specs: of all tokenizers of the vocabulary.
            places: where they stand.
            begun: prefixes of those whose items may begin in the text; none means all with layout flat but those that
                are only read (role understanding), which no model writes. Of a tokenizer with layout parallel or
                own_head, alone: sequences are then rows of codes, without text. Row b of a parallel batch is of level
                b modulo the number of levels.
            grid: (H, W) that every picture must have; by default its header or its first row decides.
            levels: how many first levels every item keeps; by default its first position decides.
            positions: how many positions an item of another kind than a grid has; by default the model decides.

        Raises:
            ValueError: the arguments do not say how long an item is, where the ids will not tell either; or they make
                no sense.
        """
        self.text = text
        self.known = list(zip(specs, places, strict=True))
        written = [spec for spec in specs if spec.role != "understanding"]
        if read := [spec.prefix for spec in specs if spec not in written and spec.prefix in begun]:
            raise ValueError(f"tokens of {read[0]} are read and not written: it was exported with role understanding.")
        flat = [spec.prefix for spec in written if spec.layout.kind == "flat"]
        self.begun = [pair for pair in self.known if pair[0].prefix in (begun or flat)]
        self._tensors: dict[tuple[tuple[int, int], ...], Tensor] = {}
        kinds = {spec.layout.kind for spec, _ in self.begun}
        answers = bool(specs) and not written  # to what is read, in text alone
        if not answers and (not self.begun or (kinds != {"flat"} and len(self.begun) > 1)):
            raise ValueError(
                f"a grammar is of layouts flat, or of one tokenizer of another; these are {sorted(kinds)}."
            )
        first = specs[0] if answers else self.begun[0][0]
        self.grid = grid_of(grid, next((spec for spec, _ in self.begun if spec.length == "grid"), first))
        self.levels, self.positions = levels, positions
        if positions is not None and (positions < 1 or all(spec.length == "grid" for spec, _ in self.begun)):
            remedy = "It must be 1 or more" if positions < 1 else f"{first.prefix} is of grids: give grid=(H, W)"
            raise ValueError(f"positions={positions}: {remedy}.")
        self.alone = None if kinds <= {"flat"} else self.begun[0]
        for spec, _ in self.begun:
            self._check(spec)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, S) ids so far, (B, V) scores of the next -> scores with -inf where the id may not come next.

        Raises:
            ValueError: the model's head is narrower than the vocabulary.
        """
        out = torch.full_like(scores, -torch.inf)
        for index, row in enumerate(input_ids):
            for start, stop in self.ranges(row, index):
                if stop > scores.shape[-1]:
                    raise ValueError(
                        f"the head has {scores.shape[-1]} rows, and id {stop - 1} is allowed. "
                        "Widen the model: model.resize_token_embeddings(vocabulary.size)."
                    )
                out[index, start:stop] = scores[index, start:stop]
        return out

    def allowed(self, batch_id: int, input_ids: Tensor) -> Tensor:
        """(S,) ids so far -> the ids that may come next."""
        key = tuple(self.ranges(input_ids, batch_id))
        if key not in self._tensors:
            self._tensors[key] = torch.cat([torch.arange(start, stop) for start, stop in key])
        return self._tensors[key]

    def ranges(self, ids: Tensor, row: int = 0) -> Ranges:
        """(S,) ids so far -> what may come next; `row` is the place in the batch, which tells a parallel level.

        Raises:
            ValueError: an item is open, and what stands in it is no beginning of one.
        """
        if self.alone is not None:
            spec, place = self.alone
            return self._own(spec, len(ids)) if spec.layout.kind == "own_head" else self._row(spec, place, ids, row)
        found = self._open(ids)
        if found is None:
            return [(0, self.text), *((place.start, place.start + 1) for _, place in self.begun)]
        (spec, place), body = found
        if spec.role == "understanding":
            raise ValueError(
                f"{spec.prefix} has begun and not ended, and its tokens are read, not written. Give the whole item, up "
                f"to {spec.special('end')}."
            )
        return self._item(spec, place, body)

    def _check(self, spec: TokenSpec) -> None:
        levels = len(spec.codebook_sizes)
        if self.levels is not None and not 1 <= self.levels <= levels:
            raise ValueError(f"levels={self.levels}, and {spec.prefix} has 1 to {levels}.")
        told = self._shape(spec)[1] is not None
        if spec.length == "grid" and not (told or spec.header or spec.rows):
            raise ValueError(f"the ids of {spec.prefix} do not tell the grid. Give grid=(H, W).")
        if spec.positions and (self.positions or 0) > spec.positions:
            raise ValueError(f"positions={self.positions}: {spec.prefix} has {spec.positions} at most.")
        by_level = spec.layout.kind == "own_head" and spec.layout.order == "level_major" and (self.levels or levels) > 1
        if (spec.layout.kind == "parallel" or by_level) and not told:
            raise ValueError(f"the rows of {spec.prefix} must end together. Give positions=T.")

    def _shape(self, spec: TokenSpec) -> tuple[tuple[int, int] | None, int | None]:
        """The grid and the positions that were asked for."""
        if spec.length == "grid":
            return self.grid, None if self.grid is None else self.grid[0] * self.grid[1]
        return None, self.positions or (spec.positions if spec.length == "fixed" else 0) or None

    def _open(self, ids: Tensor) -> tuple[tuple[TokenSpec, Place], Tensor] | None:
        """The item that has begun and not ended, and what stands in it."""
        marks = torch.tensor([mark for _, place in self.known for mark in (place.start, place.end)], device=ids.device)
        found = torch.isin(ids, marks).nonzero()
        if not len(found):
            return None
        last = int(found[-1])
        mark = int(ids[last])
        return next(((pair, ids[last + 1 :]) for pair in self.known if pair[1].start == mark), None)

    def _item(self, spec: TokenSpec, place: Place, body: Tensor) -> Ranges:
        """What may follow inside an item of layout flat."""
        grid, positions = self._shape(spec)
        if spec.header:
            signs = self._signs(place, body)
            wanted = None if grid is None else f"{grid[0]}*{grid[1]}"
            if len(signs) == len(body) and signs != wanted:
                return self._next_signs(spec, place, signs, wanted)
            sides = signs.split("*")
            if len(sides) != 2 or not all(sides) or (wanted and signs != wanted):
                raise ValueError(f"{spec.prefix} has begun with the header '{signs}'; right is {wanted or 'H*W'}.")
            grid, body = (int(sides[0]), int(sides[1])), body[len(signs) :]
            positions = grid[0] * grid[1]
        self._check_body(spec, place, body)
        return _Item(spec, place, body, positions, grid[1] if grid else None, self.levels).ranges()

    def _signs(self, place: Place, body: Tensor) -> str:
        """The digits and the * at the beginning of an item."""
        known = {number: sign for sign, number in zip(DIGITS, place.digits, strict=True)}
        text = ""
        for number in body[: 2 * MAX_DIGITS + 1].tolist():
            if number not in known:
                break
            text += known[number]
        return text

    def _next_signs(self, spec: TokenSpec, place: Place, signs: str, wanted: str | None) -> Ranges:
        """What may follow in a header: two sides of 1 to 9,999, or those that are `wanted`."""
        if wanted:
            if not wanted.startswith(signs):
                raise ValueError(f"{spec.prefix} has begun with the header '{signs}'; right is {wanted}.")
            return [_sign(place, wanted[len(signs)])]
        side = signs.split("*")[-1]
        digits = DIGITS[:10] if side else DIGITS[1:10]
        options = [_sign(place, sign) for sign in digits] if len(side) < MAX_DIGITS else []
        if side:
            options.append(_block(spec, place, 0) if "*" in signs else _sign(place, "*"))
        return options

    def _check_body(self, spec: TokenSpec, place: Place, body: Tensor) -> None:
        inside = (body >= place.blocks[0]) & (body < place.blocks[-1] + spec.codebook_sizes[-1])
        if spec.rows:
            inside |= body == place.row
        if not bool(inside.all()):
            raise ValueError(f"id {int(body[~inside][0])} stands in {spec.prefix}, which has begun and not ended.")

    def _row(self, spec: TokenSpec, place: Place, ids: Tensor, row: int) -> Ranges:
        """What may follow in one row of layout parallel."""
        delays = delays_of(spec)
        level = row % len(delays)
        begins = (ids == place.start).nonzero()
        if not len(begins):
            return [(place.start, place.start + 1)]
        column = len(ids) - 1 - int(begins[-1])
        positions = self._shape(spec)[1]
        assert positions is not None
        last = positions + max(delays)
        if column > last:  # this item has ended; other sequences of the batch may not have
            return [(place.start, place.start + 1), (place.pad, place.pad + 1)]
        if column == last:
            return [(place.end, place.end + 1)]
        kept = level < (self.levels or len(delays))
        if kept and delays[level] <= column < delays[level] + positions:
            return [_block(spec, place, level)]
        return [(place.pad, place.pad + 1)]

    def _own(self, spec: TokenSpec, count: int) -> Ranges:
        """What may follow `count` ids of layout own_head; items follow each other."""
        kept = self.levels or len(spec.codebook_sizes)
        by_level = spec.layout.order == "level_major" and kept > 1
        level = (count // (self._shape(spec)[1] or 1) if by_level else count) % kept
        bounds = list(accumulate(spec.codebook_sizes, initial=0))
        return [(bounds[level], bounds[level + 1])]


class _Item:
    """The codes and rows of an item of layout flat, as far as they are written."""

    def __init__(
        self, spec: TokenSpec, place: Place, body: Tensor, positions: int | None, width: int | None, levels: int | None
    ) -> None:
        self.spec, self.place, self.positions, self.width, self.levels = spec, place, positions, width, levels
        is_row = body == place.row
        self.codes = body[~is_row]
        self.after_row = len(body) > 0 and bool(is_row[-1])
        self.first_row = int(is_row.nonzero()[0]) if bool(is_row.any()) else None
        """Codes in the first row, once it has ended."""

    def ranges(self) -> Ranges:
        if not len(self.codes):
            return [_block(self.spec, self.place, 0)]
        return self._by_level() if self.spec.layout.order == "level_major" else self._by_position()

    def _by_position(self) -> Ranges:
        count, kept = len(self.codes), self._kept()
        if kept is not None and count % kept:
            return [_block(self.spec, self.place, count % kept)]
        if self.width is None and self.first_row is not None and kept is not None:
            self.width = self.first_row // kept
        deeper = [_block(self.spec, self.place, count)] if kept is None else []
        return deeper + self._after(count // kept if kept else 1, 0, [(self.place.end, self.place.end + 1)])

    def _by_level(self) -> Ranges:
        depth = len(self.spec.codebook_sizes)
        if self.width is None:
            self.width = self.first_row
        if self.positions is None and depth > 1:
            deeper = (self.codes >= self.place.blocks[1]).nonzero()
            self.positions = int(deeper[0]) if len(deeper) else None
        level, written = divmod(len(self.codes) - 1, self.positions) if self.positions else (0, len(self.codes) - 1)
        full = [(self.place.end, self.place.end + 1)] if self.levels in (None, level + 1) else []
        if level + 1 < (self.levels or depth):
            full.append(_block(self.spec, self.place, level + 1))
        return self._after(written + 1, level, full)

    def _kept(self) -> int | None:
        """Levels of a position; None where the first one may go on."""
        if self.levels is not None:
            return self.levels
        depth = len(self.spec.codebook_sizes)
        first = self.codes[: depth + 1]
        again = (first[1:] < self.place.blocks[0] + self.spec.codebook_sizes[0]).nonzero()  # level 0: the next position
        if len(again):
            return int(again[0]) + 1
        return len(first) if self.first_row is not None or len(first) == depth else None

    def _after(self, written: int, level: int, full: Ranges) -> Ranges:
        """What may follow so many positions: another one, the token between rows, or what comes after all (`full`)."""
        more, row = [_block(self.spec, self.place, level)], [(self.place.row, self.place.row + 1)]
        if self.after_row:
            return more
        known = self.positions is not None
        if not self.spec.rows or self.width is None:
            if not known and written == self.spec.positions:
                return full
            if not known:
                return more + full + (row if self.spec.rows else [])
            return full if written == self.positions else more
        if written % self.width:
            return more
        if not known:
            return row + full
        return full if written == self.positions else row


def _block(spec: TokenSpec, place: Place, level: int) -> tuple[int, int]:
    return place.blocks[level], place.blocks[level] + spec.codebook_sizes[level]


def _sign(place: Place, sign: str) -> tuple[int, int]:
    number = place.digits[DIGITS.index(sign)]
    return number, number + 1
