"""The header "{H}*{W}" before the codes of a picture (Emu3), in ids of digits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

MAX_DIGITS = 4
"""Of a side in a header: grids up to 9,999 positions a side."""
DIGITS = "0123456789*"
"""What headers are written in."""


def header_of(grid: tuple[int, int], digits: Sequence[int]) -> list[int]:
    """The ids of a header."""
    return [digits[DIGITS.index(sign)] for sign in f"{grid[0]}*{grid[1]}"]


def read_header(body: Tensor, digits: Sequence[int], given: tuple[int, int] | None) -> tuple[tuple[int, int], int]:
    """The grid that a header tells, and how many ids it has.

    Raises:
        ValueError: there is no header, or it is not of the grid that is given.
    """
    signs = {number: sign for sign, number in zip(DIGITS, digits, strict=True)}
    text = ""
    for number in body[: 2 * MAX_DIGITS + 1].tolist():
        if number not in signs:
            break
        text += signs[number]
    sides = text.split("*")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise ValueError(f"it must begin with its height * width in digits, and begins with '{text}'.")
    grid = int(sides[0]), int(sides[1])
    if given is not None and given != grid:
        raise ValueError(f"its header says {text}, and grid={given}.")
    return grid, len(text)
