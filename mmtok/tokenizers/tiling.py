"""Big pictures in tiles: the memory of one tile, whatever the size of the picture.

Convolutions see finitely far (`Networks.reach`). A tile that is computed with that much of its surroundings, and then
cut to itself, is what the whole picture gives there; at the picture's own borders it is padded as the whole picture is.
GroupNorm and attention see everything: with them a tile differs from the whole, and tiles from each other. Then
decoded tiles are blended where they meet, as the tiled autoencoders of diffusion models do, and `compare` says what is
left of the seams.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.codes import Codes
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.budget import Budget, levels_alone
from mmtok.tokenizers.image import ImageTokenizer

TILE = 512
"""Side of a tile in pixels, where none is given. What surrounds it is computed beside."""
BIG = 2048 * 2048
"""Pixels above which the commands encode and decode in tiles of their own accord."""


class Span(NamedTuple):
    """A tile along one axis, in positions: what is kept of it, and what is computed for that."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def kept(self) -> slice:
        """Within what was computed."""
        return slice(self.start - self.first, self.stop - self.first)

    @property
    def computed(self) -> slice:
        """Within the whole."""
        return slice(self.first, self.last)

    def pixels(self, stride: int) -> slice:
        """What is computed, in pixels of the whole."""
        return slice(self.first * stride, self.last * stride)


class Share(NamedTuple):
    """What a tile gives to a picture along one axis, in pixels."""

    target: slice
    """Of the picture."""
    source: slice
    """Of the tile."""
    weight: Tensor
    """Of the tile's pixels; those of all tiles at a pixel add up to 1."""


class Tiled:
    """Encodes and decodes with an image tokenizer, tile by tile; the codes are the ordinary ones of a whole picture.

    Pictures and codes may lie on another device than the tokenizer: tiles are sent there, and results come back.

    Attributes:
        approximate: why the results differ from those of the whole picture; None where they are the same to rounding.
    """

    def __init__(self, tokenizer: Tokenizer, tile: int = TILE, overlap: int | None = None, blend: bool = True) -> None:
        """Choose the tiles.

        Args:
            tokenizer: an image tokenizer whose quantizer takes each position by itself.
            tile: side of what is kept of a tile, in pixels; rounded down to the stride.
            overlap: pixels computed beyond it on each side; None takes what the convolutions see.
            blend: whether decoded tiles fade into each other over half of that, where they are approximate.

        Raises:
            ValueError: the tile is smaller than the stride, or the tokenizer cannot be tiled.
        """
        if not isinstance(tokenizer, ImageTokenizer):
            raise ValueError(f"Only pictures come in tiles; this tokenizer is a {type(tokenizer).__name__}.")
        if not self.possible(tokenizer):
            raise ValueError("This tokenizer needs the whole picture at once, so it cannot come in tiles.")
        stride = tokenizer.networks.downsample
        if tile < stride:
            raise ValueError(f"tile={tile} is smaller than the stride of {stride} pixels. Use {stride} or more.")
        if overlap is not None and overlap < 0:
            raise ValueError(f"overlap={overlap} is negative. Use 0 or more pixels.")
        self.tokenizer, self.stride = tokenizer, stride
        self.positions = tile // stride
        self.encoder_halo, self.decoder_halo = self._halos(overlap)
        self.approximate = self._reason()
        self.blend = blend and self.approximate is not None

    @staticmethod
    def possible(tokenizer: Tokenizer) -> bool:
        """Whether each position has its place in the picture, and is quantized by itself, also within quantizers."""
        return tokenizer.spec.positions is None and all(
            part.pointwise for part in tokenizer.quantizer.modules() if isinstance(part, Quantizer)
        )

    def _halos(self, overlap: int | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Positions computed before and after a tile, in encoder and decoder."""
        reach = self.tokenizer.networks.reach
        if overlap is None and reach is not None:
            before, after = (-(-pixels // self.stride) for pixels in reach.encoder)
            return (before, after), reach.decoder
        around = self.positions // 4 if overlap is None else -(-overlap // self.stride)
        return (around, around), (around, around)

    def _reason(self) -> str | None:
        reach = self.tokenizer.networks.reach
        if reach is None:
            return "how far its network sees is not known"
        if reach.beyond:
            return f"{' and '.join(reach.beyond)} of a tile see that tile alone"
        far = max(*reach.encoder, *(side * self.stride for side in reach.decoder))
        halo = min(*self.encoder_halo, *self.decoder_halo) * self.stride
        enough = [have * self.stride >= need for have, need in zip(self.encoder_halo, reach.encoder, strict=True)] + [
            have >= need for have, need in zip(self.decoder_halo, reach.decoder, strict=True)
        ]
        return None if all(enough) else f"tiles overlap by {halo} pixels and the network sees {far}"

    def borders(self, height: int, width: int) -> tuple[list[int], list[int]]:
        """Rows and columns of pixels at which a tile begins, but for the first."""
        rows, columns = (self._spans(-(-side // self.stride), (0, 0)) for side in (height, width))
        return [span.start * self.stride for span in rows[1:]], [span.start * self.stride for span in columns[1:]]

    def count(self, height: int, width: int) -> int:
        """Tiles of a picture."""
        rows, columns = self.borders(height, width)
        return (len(rows) + 1) * (len(columns) + 1)

    def _spans(self, length: int, halo: tuple[int, int]) -> list[Span]:
        """Tiles along an axis, of nearly equal size: a sliver at the end would have statistics of its own."""
        count = max(-(-length // self.positions), 1)
        borders = [length * index // count for index in range(count + 1)]
        before, after = halo
        return [Span(a, b, max(a - before, 0), min(b + after, length)) for a, b in pairwise(borders)]

    def _tiles(self, grid: tuple[int, int], halo: tuple[int, int]) -> Iterator[tuple[Span, Span]]:
        for row in self._spans(grid[0], halo):
            for column in self._spans(grid[1], halo):
                yield row, column

    @torch.inference_mode()
    def encode(self, x: Tensor, lengths: Tensor | None = None, *, budget: int | str | Budget | None = None) -> Codes:
        """Pictures (B, C, H, W) of any size -> the codes of the whole; see `Tokenizer.encode`."""
        tokenizer = self.tokenizer
        tokenizer.check(x)
        levels = tokenizer.kept_levels(x.shape[0], levels_alone(budget, "Pictures in tiles"))
        size = (x.shape[2], x.shape[3])
        grid = (-(-size[0] // self.stride), -(-size[1] // self.stride))
        ids = None
        with evaluating(tokenizer):
            for row, column in self._tiles(grid, self.encoder_halo):
                # Where a tile ends with the picture, `embed` extends it to the stride as it would the whole.
                latents = tokenizer.embed(
                    x[:, :, row.pixels(self.stride), column.pixels(self.stride)].to(self._device), lengths
                )
                assert latents.grid is not None
                z = latents.z.unflatten(1, latents.grid)[:, row.kept, column.kept]
                part = tokenizer.quantizer.encode(z.flatten(1, 2), None, grid=(z.shape[1], z.shape[2]), levels=levels)
                if ids is None:
                    ids = part.new_empty(*part.shape[:2], *grid, device=x.device)
                ids[:, :, row.start : row.stop, column.start : column.stop] = part.unflatten(
                    2, (z.shape[1], z.shape[2])
                )
        assert ids is not None
        full = torch.full((x.shape[0],), grid[0] * grid[1], device=x.device)
        return Codes(ids.flatten(2), full, torch.tensor([size] * x.shape[0], device=x.device).view(-1, 2), grid=grid)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """Codes of pictures, however they were encoded -> x, cut to the largest `source_size` of the batch."""
        tokenizer = self.tokenizer
        if codes.grid is None:
            return tokenizer.decode(codes)  # which refuses them
        ids = codes.ids.unflatten(2, codes.grid)
        # What the decoder gives may be larger, by what the encoder padded.
        sides = [min(n * self.stride, most) for n, most in zip(codes.grid, codes.source_size.amax(0), strict=True)]
        fades = [self._fade(length) for length in codes.grid]
        x = None
        with evaluating(tokenizer):
            for row, column in self._tiles(codes.grid, self.decoder_halo):
                own = ids[:, :, row.computed, column.computed]
                grid = (own.shape[2], own.shape[3])
                values = tokenizer.quantizer.decode(own.flatten(2).to(self._device), grid=grid)
                tile = tokenizer.synthesise(values, grid, (grid[0] * self.stride, grid[1] * self.stride))
                if x is None:
                    x = tile.new_zeros(*tile.shape[:2], *sides, device=ids.device)
                top, left = (self._share(*axis) for axis in zip((row, column), codes.grid, fades, strict=True))
                share = tile[:, :, top.source, left.source] * (top.weight[:, None] * left.weight).to(tile)
                place = x[:, :, top.target, left.target]
                place += share[:, :, : place.shape[2], : place.shape[3]].to(x.device)
        assert x is not None
        return x

    def _fade(self, length: int) -> int:
        """Pixels on either side of a border over which two tiles fade into each other: half of what both computed,
        and no more than half of the smallest tile, since three would meet then.
        """
        if not self.blend:
            return 0
        smallest = min(span.stop - span.start for span in self._spans(length, (0, 0)))
        return min(*self.decoder_halo, smallest) * self.stride // 2

    def _share(self, span: Span, length: int, fade: int) -> Share:
        """What a decoded tile gives to the whole along an axis of `length` positions."""
        before, after = (fade if span.start > 0 else 0), (fade if span.stop < length else 0)
        low, high = span.start * self.stride - before, span.stop * self.stride + after
        weight = torch.ones(high - low)
        ramp = (torch.arange(2 * fade) + 0.5) / max(2 * fade, 1)
        weight[: 2 * before] = ramp[: 2 * before]
        weight[high - low - 2 * after :] = ramp.flip(0)[: 2 * after]
        start = span.first * self.stride
        return Share(slice(low, high), slice(low - start, high - start), weight)

    @property
    def _device(self) -> torch.device:
        return next(self.tokenizer.parameters()).device
