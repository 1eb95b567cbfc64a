"""Pictures to codes and back for the verbs, and their option --tile: whole, or in tiles where they are big."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.codes import Codes
    from mmtok.tokenizers import Tokenizer
    from mmtok.tokenizers.budget import Budget
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
    """Encodes and decodes the pictures of a call with the tokenizer itself, or with the same tokenizer in tiles."""

    def __init__(self, tokenizer: Tokenizer, tile: int | str) -> None:
        from mmtok.tokenizers.image import ImageTokenizer
        from mmtok.tokenizers.tiling import TILE, Tiled

        self.tokenizer, self.always = tokenizer, isinstance(tile, int)
        self.device = next(tokenizer.parameters()).device
        self.tiled: Tiled | None = None
        if isinstance(tile, int):
            self.tiled = Tiled(tokenizer, tile)
        elif tile == AUTO and isinstance(tokenizer, ImageTokenizer) and Tiled.possible(tokenizer):
            self.tiled = Tiled(tokenizer, max(TILE, tokenizer.networks.downsample))

    def encode(self, source: Path, budget: int | Budget | None) -> tuple[Codes, str]:
        """Codes of a file, and what to say about how they were computed."""
        x = self.tokenizer.preprocess(source)
        encoder, how = self.choose(tuple(x.shape[2:]))
        # Tiles go to the device one by one: there need be no room for the whole.
        return encoder.encode(x.to(self.device) if encoder is self.tokenizer else x, budget=budget), how

    def decode(self, codes: Codes, target: Path) -> str:
        """Write the picture of codes, and give what to say about how it was computed."""
        decoder, how = self.choose(tuple(codes.source_size.amax(0).tolist()))
        x = decoder.decode(codes.to(self.device) if decoder is self.tokenizer else codes)
        self.tokenizer.write(x.cpu(), target)
        return how

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
