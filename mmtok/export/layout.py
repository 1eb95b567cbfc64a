"""Codes as a language model sees them, and back: the layouts flat, parallel and own_head, each an exact inverse.

flat is one sequence an item, start and end around it: one table for all (Chameleon), a header "{H}*{W}" (Emu3), tokens
between rows (Apertus), the levels of one position after the other (AnyGPT). parallel is a row a level, each late by its
delay (MusicGen, Moshi). own_head is flat without specials, with ids from 0, for a head and an embedding of their own
(Janus).

What is read back is laid out again and compared: a sequence which no codes give is refused at its first wrong id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from mmtok.codes import Codes
from mmtok.export.given import check_codes, grid_of, ids_of
from mmtok.export.header import header_of, read_header
from mmtok.export.token_spec import TokenSpec


@dataclass(frozen=True)
class Place:
    """Where the ids of one tokenizer stand in a vocabulary."""

    start: int
    """The special before an item."""
    end: int
    """The special after an item."""
    row: int
    """The special between two rows of a grid."""
    pad: int
    """The special where there is no code: before and after a delayed row, and in a dropped level of a parallel one."""
    blocks: tuple[int, ...]
    """The id of code 0 of each level."""
    digits: tuple[int, ...] = ()
    """Ids of "0" to "9" and "*", for headers."""


def own_place(spec: TokenSpec) -> Place:
    """Ids from 0, a block a level, for the layout own_head."""
    return Place(-1, -1, -1, -1, tuple(accumulate(spec.codebook_sizes[:-1], initial=0)))


def delays_of(spec: TokenSpec) -> tuple[int, ...]:
    """By how many positions each level of the parallel layout is late."""
    return spec.layout.delays or tuple(range(len(spec.codebook_sizes)))


def to_ids(codes: Codes, spec: TokenSpec, place: Place) -> list[Tensor]:
    """Codes of a batch -> ids of each item.

    Args:
        codes: of the tokenizer with this spec; fewer levels than it has are the first ones.
        spec: of the tokenizer.
        place: where it stands in the vocabulary; ignored by own_head.

    Returns:
        flat: (n,) int64, specials, header and rows included. own_head: (n,), ids from 0. parallel: (L, T + 2 + the
        largest delay), with a column of starts and one of ends.

    Raises:
        ValueError: these are no codes of this tokenizer, or the layout cannot tell where codes are missing.
    """
    check_codes(codes, spec)
    items = []
    for index, (ids, length) in enumerate(zip(codes.ids, codes.lengths.tolist(), strict=True)):
        item = ids[:, :length]
        try:
            items.append(_item_to_ids(item, spec, place, codes.grid))
        except ValueError as error:
            raise ValueError(f"item {index} of {spec.prefix}: {error}") from error
    return items


def from_ids(
    items: Sequence[Tensor | Sequence[int]], spec: TokenSpec, place: Place, grid: tuple[int, int] | None = None
) -> Codes:
    """Ids of each item -> codes of a batch, padded with -1: the inverse of `to_ids`.

    The sizes of the sources are not in the ids: they are what all positions cover.

    Args:
        items: as `to_ids` gives them.
        spec: of the tokenizer.
        place: where it stands in the vocabulary; ignored by own_head.
        grid: (H, W) of pictures, needed where neither header nor rows tell.

    Raises:
        ValueError: an item is no sequence of this layout; names the first id that is wrong.
    """
    grid = grid_of(grid, spec)
    found: list[tuple[Tensor, tuple[int, int] | None]] = []
    for index, item in enumerate(items):
        try:
            found.append(_item_from_ids(ids_of(item), spec, place, grid))
        except ValueError as error:
            raise ValueError(f"item {index} of {spec.prefix}: {error}") from error
    grids = {shape for _, shape in found}
    if len(grids) > 1:
        raise ValueError(
            f"{spec.prefix}: items have grids {sorted(map(str, grids))}; codes share one. Give them apart."
        )
    lengths = torch.tensor([levels.shape[1] for levels, _ in found], dtype=torch.int64)
    ids = torch.full((len(found), len(spec.codebook_sizes), int(lengths.max()) if found else 0), -1)
    for row, (levels, _) in zip(ids, found, strict=True):
        row[:, : levels.shape[1]] = levels
    shared = grids.pop() if grids else grid
    return Codes(ids, lengths, _covered(lengths, shared, spec), shared)


def _covered(lengths: Tensor, grid: tuple[int, int] | None, spec: TokenSpec) -> Tensor:
    """(B, n) sizes of the sources that so many positions are taken to be of."""
    if spec.source_size:
        return torch.tensor(spec.source_size).expand(len(lengths), -1)
    covers = lengths[:, None] if grid is None else torch.tensor(grid).expand(len(lengths), 2)
    return covers * spec.downsample


def _item_to_ids(item: Tensor, spec: TokenSpec, place: Place, grid: tuple[int, int] | None) -> Tensor:
    """(L or fewer, T) codes -> ids."""
    if spec.layout.kind == "parallel":
        return _delay(item, spec, place)
    kept = _kept_levels(item)
    if spec.layout.kind == "own_head":
        return _flatten(item[:kept], spec, own_place(spec), None)
    header = header_of(grid, place.digits) if spec.header and grid is not None else []
    body = _flatten(item[:kept], spec, place, grid)
    new = body.new_tensor
    return torch.cat([new([place.start, *header]), body, new([place.end])])


def _item_from_ids(
    ids: Tensor, spec: TokenSpec, place: Place, grid: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int] | None]:
    """ids -> (L, T) codes and their grid."""
    if ids.ndim != (2 if spec.layout.kind == "parallel" else 1):
        raise ValueError(f"layout '{spec.layout.kind}' has no ids of shape {tuple(ids.shape)}. Give a list of items.")
    if spec.layout.kind == "parallel":
        levels, shape = _undelay(ids, spec, place), grid
    else:
        levels, shape = _unflatten(ids, spec, place, grid)
    if spec.length == "grid":
        if shape is None:
            raise ValueError("its ids do not tell the grid. Give grid=(H, W).")
        if shape[0] * shape[1] != levels.shape[1]:
            raise ValueError(f"{levels.shape[1]} positions are no grid of {shape[0]} x {shape[1]}.")
    _compare(ids, _item_to_ids(levels, spec, place, shape))
    return levels, shape


def _flatten(item: Tensor, spec: TokenSpec, place: Place, grid: tuple[int, int] | None) -> Tensor:
    """(kept levels, T) codes -> one sequence, with the tokens between rows."""
    kept = len(item)
    ids = item + item.new_tensor(place.blocks[:kept])[:, None]
    by_level = spec.layout.order == "level_major"
    if not spec.rows or grid is None:
        return (ids if by_level else ids.mT).flatten()
    # A pass is what is one raster: a level, or all levels beside each other. Rows are joined, not ended.
    passes = ids.reshape(kept, grid[0], grid[1]) if by_level else ids.mT.reshape(1, grid[0], -1)
    return torch.nn.functional.pad(passes, (0, 1), value=place.row).flatten(1)[:, :-1].flatten()


def _unflatten(
    ids: Tensor, spec: TokenSpec, place: Place, grid: tuple[int, int] | None
) -> tuple[Tensor, tuple[int, int] | None]:
    """One sequence -> (L, T) codes and the grid, as far as it tells. What is wrong in it, `_compare` finds."""
    body = ids
    if spec.layout.kind == "own_head":
        place = own_place(spec)
    else:
        if len(ids) < 2 or ids[0] != place.start or ids[-1] != place.end:
            raise ValueError(f"it must begin with {spec.special('start')} and end with {spec.special('end')}.")
        body = ids[1:-1]
        if spec.header:
            grid, used = read_header(body, place.digits, grid)
            body = body[used:]
    is_row = body == place.row if spec.rows else torch.zeros_like(body, dtype=torch.bool)
    tokens = body[~is_row]
    level = _levels_of(tokens, spec, place)
    kept = int(level.max()) + 1 if len(tokens) else 1
    length = len(tokens) // kept
    if kept * length != len(tokens):
        raise ValueError(f"{len(tokens)} codes do not fill {kept} levels.")
    tokens = tokens - tokens.new_tensor(place.blocks)[level]
    by_level = spec.layout.order == "level_major"
    levels = torch.full((len(spec.codebook_sizes), length), -1)
    levels[:kept] = tokens.reshape(kept, length) if by_level else tokens.reshape(length, kept).mT
    if spec.rows and grid is None:
        ends = is_row.nonzero()
        width = int(ends[0]) // (1 if by_level else kept) if len(ends) else length
        grid = (length // max(width, 1), width)
    return levels, grid


def _delay(item: Tensor, spec: TokenSpec, place: Place) -> Tensor:
    """(L or fewer, T) codes -> (L, T + 2 + largest delay) ids."""
    delays = delays_of(spec)
    out = item.new_full((len(delays), item.shape[1] + 2 + max(delays)), place.pad)
    out[:, 0], out[:, -1] = place.start, place.end
    for level, (codes, late) in enumerate(zip(item, delays, strict=False)):
        ids = torch.where(codes >= 0, codes + place.blocks[level], place.pad)
        out[level, 1 + late : 1 + late + len(codes)] = ids
    return out


def _undelay(ids: Tensor, spec: TokenSpec, place: Place) -> Tensor:
    """(L, T') ids -> (L, T) codes. What is wrong in them, `_compare` finds."""
    delays = delays_of(spec)
    length = ids.shape[1] - 2 - max(delays)
    if len(ids) != len(delays) or length < 0:
        raise ValueError(f"ids of shape {tuple(ids.shape)} are no {len(delays)} rows with delays {list(delays)}.")
    levels = torch.full((len(delays), length), -1)
    for level, late in enumerate(delays):
        row = ids[level, 1 + late : 1 + late + length]
        if bool((_levels_of(row[row != place.pad], spec, place) != level).any()):
            raise ValueError(f"row {level} has codes of another level.")
        levels[level] = torch.where(row == place.pad, -1, row - place.blocks[level])
    return levels


def _levels_of(tokens: Tensor, spec: TokenSpec, place: Place) -> Tensor:
    """The level of each id.

    Raises:
        ValueError: an id is in no block, such as that of a head wider than the codebook.
    """
    starts = tokens.new_tensor(place.blocks)
    level = torch.bucketize(tokens, starts, right=True) - 1
    inside = (level >= 0) & (tokens < (starts + starts.new_tensor(spec.codebook_sizes))[level])
    if not bool(inside.all()):
        stop = place.blocks[-1] + spec.codebook_sizes[-1]
        wrong = int(tokens[~inside][0])
        raise ValueError(f"id {wrong} is no code; codes have the ids {place.blocks[0]} to {stop - 1}.")
    return level


def _compare(given: Tensor, right: Tensor) -> None:
    """Refuse ids that differ from what their codes give."""
    if torch.equal(given, right):
        return
    given, right = given.flatten(), right.flatten()
    shared = min(len(given), len(right))
    differs = (given[:shared] != right[:shared]).nonzero()
    at = int(differs[0]) if len(differs) else shared
    said = f"id {int(given[at])}" if at < len(given) else "the end"
    wanted = f"id {int(right[at])}" if at < len(right) else "the end"
    raise ValueError(f"{said} stands at place {at}, where the layout wants {wanted}.")


def _kept_levels(item: Tensor) -> int:
    """How many first levels an item of (L, T) codes keeps, the same at all its positions."""
    present = item >= 0
    if not item.shape[1]:
        return len(item)
    kept = int(present[:, 0].sum())
    if not kept or not bool((present == (torch.arange(len(item), device=item.device) < kept)[:, None]).all()):
        raise ValueError(
            "codes are missing here and there; one sequence can drop only the last levels of all positions."
        )
    return kept
