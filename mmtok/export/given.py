"""What people hand to a vocabulary, looked at before it is used: codes, ids and grids, each refused by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmtok.codes import Codes
from mmtok.export.header import MAX_DIGITS
from mmtok.export.token_spec import TokenSpec


def ids_of(item: Tensor | Sequence[int]) -> Tensor:
    """Ids as int64 on the CPU.

    Raises:
        ValueError: they are no whole numbers, or no array of them.
    """
    try:
        ids = torch.as_tensor(item, device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:  # whatever torch says of texts and ragged lists
        raise ValueError(f"ids are whole numbers in one array, and these are {_short(item)}.") from error
    if not ids.numel():
        return ids.to(torch.int64)
    if ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
        raise ValueError(f"ids are whole numbers, and these are {ids.dtype}. Use ids.long().")
    return ids.to(torch.int64)


def grid_of(grid: Any, spec: TokenSpec) -> tuple[int, int] | None:
    """A grid (H, W) that was asked for; None where none was.

    Raises:
        ValueError: it is no grid, or the spec has none.
    """
    if grid is None:
        return None
    if spec.length != "grid":
        raise ValueError(f"grid={grid} is for pictures, and {spec.prefix} ({spec.modality}) has none. Leave it out.")
    sides = tuple(grid) if isinstance(grid, Sequence) and not isinstance(grid, str) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side < 10**MAX_DIGITS for side in sides):
        raise ValueError(f"grid={grid!r} must be (H, W), two whole numbers from 1 to {10**MAX_DIGITS - 1}.")
    return int(sides[0]), int(sides[1])


def check_codes(codes: Codes, spec: TokenSpec) -> None:
    """Refuse what is not made of codes of the tokenizer with this spec, as far as codes can tell.

    Raises:
        ValueError: names what differs.
    """
    if not all(hasattr(codes, name) for name in ("ids", "lengths", "source_size", "grid")):
        raise ValueError(
            f"to_ids takes Codes, and this is {_short(codes)}. Give what encode returns, or Codes(ids, lengths, "
            "source_size, grid)."
        )
    if codes.scales is not None:
        raise ValueError(f"{spec.prefix}: codes of several scales have no layout.")
    sizes = torch.tensor(spec.codebook_sizes, device=codes.ids.device)
    if codes.ids.shape[1] > len(sizes):
        raise ValueError(f"{spec.prefix} has {len(sizes)} levels, and the codes have {codes.ids.shape[1]}.")
    _check_shape(codes, spec)
    wrong = (codes.ids < -1) | (codes.ids >= sizes[: codes.ids.shape[1], None])
    if bool(wrong.any()):
        item, level, at = wrong.nonzero()[0].tolist()
        said = f"code {int(codes.ids[item, level, at])} at level {level}, position {at}"
        raise ValueError(f"item {item} of {spec.prefix}: {said}; the level has {int(sizes[level])}.")


def _check_shape(codes: Codes, spec: TokenSpec) -> None:
    """Positions of each item must be those that a source of its size has with this tokenizer."""
    if spec.length == "grid":
        if codes.grid is None:
            raise ValueError(f"{spec.prefix} is of grids, and the codes have none.")
        positions = codes.grid[0] * codes.grid[1]
        if max(codes.grid) >= 10**MAX_DIGITS or bool((codes.lengths != positions).any()):
            raise ValueError(f"{spec.prefix}: codes of {codes.lengths.tolist()} positions in a grid {codes.grid}.")
        counts = codes.ids.new_tensor(codes.grid).expand(len(codes.ids), 2)
    elif codes.grid is not None:
        raise ValueError(
            f"{spec.prefix} ({spec.modality}) has no grid, and the codes have {codes.grid}: they are of another "
            "tokenizer."
        )
    elif spec.length == "frames":
        counts = codes.lengths[:, None]
    else:
        _check_count(codes, spec)
        return
    if counts.shape != codes.source_size.shape:
        raise ValueError(
            f"{spec.prefix}: sources have {codes.source_size.shape[1:].numel()} sizes, not {counts.shape[1]}."
        )
    wanted = -(-codes.source_size // spec.downsample)
    if bool((wanted != counts).any()):
        item = int((wanted != counts).any(1).nonzero()[0])
        raise ValueError(
            f"item {item} of {spec.prefix}: a source of {codes.source_size[item].tolist()} has {wanted[item].tolist()} "
            f"positions at {spec.downsample} each, and the codes have {counts[item].tolist()}: they are of "
            "another tokenizer, or source_size is wrong."
        )


def _check_count(codes: Codes, spec: TokenSpec) -> None:
    """Positions that do not come of a source's size: a fixed number of them, or at most so many."""
    least = spec.positions if spec.length == "fixed" else 1
    wrong = (codes.lengths < least) | (codes.lengths > spec.positions)
    if spec.positions and bool(wrong.any()):
        item = int(wrong.nonzero()[0])
        wanted = f"{least} to {spec.positions}" if least < spec.positions else f"{spec.positions}"
        raise ValueError(f"item {item} of {spec.prefix} has {int(codes.lengths[item])} positions, not {wanted}.")


def _short(value: object) -> str:
    text = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]
    return f"{type(value).__name__} {text}"
