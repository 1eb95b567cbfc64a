"""The option --tile of encode and decode: whether a picture is computed whole or in tiles."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.tokenizers import Tokenizer
    from mmtok.tokenizers.tiling import Tiled

AUTO, OFF = "auto", "off"


def add_tile_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tile",
        type=_tile,
        default=AUTO,
        metavar="PIXELS",
        help="side of the tiles a picture is computed in, 'off' for never, or 'auto' (default): tiles of 512 pixels "
        "for pictures of more than 2048x2048",
    )


class Tiles:
    """Which object computes a picture: the tokenizer itself, or the same tokenizer in tiles."""

    def __init__(self, tokenizer: Tokenizer, tile: int | str) -> None:
        from mmtok.tokenizers.image import ImageTokenizer
        from mmtok.tokenizers.tiling import TILE, Tiled

        self.tokenizer, self.always = tokenizer, isinstance(tile, int)
        self.tiled: Tiled | None = None
        if isinstance(tile, int):
            self.tiled = Tiled(tokenizer, tile)
        elif tile == AUTO and isinstance(tokenizer, ImageTokenizer) and Tiled.possible(tokenizer):
            self.tiled = Tiled(tokenizer, max(TILE, tokenizer.networks.downsample))

    def choose(self, size: tuple[int, ...]) -> tuple[Tokenizer | Tiled, str]:
        """What computes a picture of (height, width), and what to say about it."""
        from mmtok.tokenizers.tiling import BIG

        if self.tiled is None or not (self.always or size[0] * size[1] > BIG):
            return self.tokenizer, ""
        count = self.tiled.count(*size)
        if count == 1:
            return self.tokenizer, ""
        said = f", in {count} tiles"
        return self.tiled, f"{said} (approximate: {self.tiled.approximate})" if self.tiled.approximate else said


def _tile(text: str) -> int | str:
    if text in (AUTO, OFF):
        return text
    try:
        side = int(text)
    except ValueError:
        side = 0
    if side < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no side of a tile. Give pixels, as 512, or 'auto' or 'off'.")
    return side
