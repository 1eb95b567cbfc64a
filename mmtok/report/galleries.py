"""Which patches of pictures chose a code: what a code stands for, as far as it stands for anything."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CODES, PATCHES = 12, 8
"""Codes shown, and patches of each."""
AROUND = 1
"""Patches' sides shown around each patch: a code sees more than its own square."""


@dataclass(frozen=True)
class Chosen:
    """A code and the patches nearest to it."""

    code: int
    count: int
    """How often it occurred."""
    strip: Tensor
    """uint8 (C, side, n * side), nearest first; the code's own square is the middle third of each."""
    patches: int


class Patches:
    """Positions of many pictures, by the code they chose.

    Args:
        downsample: pixels (a side) behind one position.
    """

    def __init__(self, downsample: int) -> None:
        self.side = downsample
        self._pictures: list[Tensor] = []
        self._ids: list[Tensor] = []
        self._distances: list[Tensor] = []
        self._places: list[Tensor] = []

    def add(self, pictures: Tensor, ids: Tensor, latents: Tensor, values: Tensor, grid: tuple[int, int]) -> None:
        """Pictures uint8 (B, C, H, W), the first level's ids (B, T), latents and values (B, T, D)."""
        if ids.shape[1] != grid[0] * grid[1]:
            return
        rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
        for picture, codes, z, value in zip(pictures, ids, latents, values, strict=True):
            number = torch.full_like(codes, len(self._pictures))
            self._pictures.append(picture)
            self._ids.append(codes)
            self._distances.append((z - value).float().square().sum(-1))
            self._places.append(torch.stack([number, rows.flatten(), columns.flatten()], 1))

    def chosen(self) -> list[Chosen]:
        """Codes evenly over the ranks of frequency, of those that fill a row; commonest first."""
        if not self._ids:
            return []
        ids, distances, places = torch.cat(self._ids), torch.cat(self._distances), torch.cat(self._places)
        counts = ids[ids >= 0].bincount()
        able = [code for code in counts.argsort(descending=True, stable=True).tolist() if counts[code] >= PATCHES]
        picked = able if len(able) <= CODES else [able[round(i * (len(able) - 1) / (CODES - 1))] for i in range(CODES)]
        found = []
        for code in picked:
            own = (ids == code).nonzero()[:, 0]
            own = own[distances[own].argsort(stable=True)]
            best = _spread(places[own].tolist())
            strip = torch.cat([self._cut(*place) for place in best], 2)
            found.append(Chosen(code, int(counts[code]), strip, len(best)))
        return found

    def _cut(self, number: int, row: int, column: int) -> Tensor:
        """A position's square with what is around it; beyond an edge, the edge's pixels."""
        picture, margin = self._pictures[number], AROUND * self.side
        down, right = (max(0, -size % self.side) + margin for size in picture.shape[1:])
        padded = F.pad(picture[None].float(), (margin, right, margin, down), mode="replicate")[0].to(torch.uint8)
        size = self.side + 2 * margin
        top, left = row * self.side, column * self.side
        return padded[:, top : top + size, left : left + size]


def _spread(places: list[list[int]]) -> list[list[int]]:
    """The first places, of as many pictures as there are: neighbours in one picture are alike anyway."""
    seen: set[int] = set()
    first: list[list[int]] = []
    rest: list[list[int]] = []
    for place in places:
        (rest if place[0] in seen else first).append(place)
        seen.add(place[0])
        if len(first) == PATCHES:
            break
    return [*first, *rest][:PATCHES]
