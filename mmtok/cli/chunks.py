"""Sounds to codes and back for the verbs, and their option --chunk: whole, or in chunks where they are long."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from mmtok.codes import Codes
    from mmtok.tokenizers.audio import AudioTokenizer
    from mmtok.tokenizers.budget import Budget
    from mmtok.tokenizers.chunks import Chunked

AUTO, OFF = "auto", "off"


def add_chunk_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--chunk",
        type=_chunk,
        default=AUTO,
        metavar="SECONDS",
        help="length of the chunks a sound is computed in, 'off' for never, or 'auto' (default): chunks of 10 s for "
        "sounds of more than a minute",
    )


class Chunks:
    """Encodes and decodes the sounds of a call with the tokenizer itself, or with the same tokenizer in chunks."""

    def __init__(self, tokenizer: AudioTokenizer, chunk: float | str) -> None:
        from mmtok.tokenizers.chunks import SECONDS, Chunked

        self.tokenizer, self.always = tokenizer, isinstance(chunk, float)
        self.device = next(tokenizer.parameters()).device
        self.chunked: Chunked | None = None
        if isinstance(chunk, float):
            self.chunked = Chunked(tokenizer, chunk)
        elif chunk == AUTO and Chunked.possible(tokenizer):
            self.chunked = Chunked(tokenizer, SECONDS)
        self._measured = ""

    def encode(self, source: Path, budget: int | Budget | None) -> tuple[Codes, str]:
        """Codes of a file, and what to say about how they were computed."""
        from datamodules.sound import BY_AV, read_sound
        from mmtok.tokenizers.sounds import file_blocks, file_seconds

        extension = source.suffix.lower().removeprefix(".")
        config = self.tokenizer.config
        if extension in BY_AV:
            samples, rate = read_sound(source.read_bytes(), extension)
            x = self.tokenizer.preprocess(samples, sample_rate=rate)
        else:
            seconds = file_seconds(source)
            chunked = self._for(seconds)
            if chunked and not chunked.approximate and config.normalize == "none":
                blocks = file_blocks(source, config.sample_rate, config.channels)
                return chunked.encode_pieces(blocks, budget=budget), self._said(chunked, seconds)
            x = self.tokenizer.preprocess(source)
        seconds = x.shape[2] / config.sample_rate
        if chunked := self._for(seconds):
            return chunked.encode(x, budget=budget), self._said(chunked, seconds, x)
        return self.tokenizer.encode(x.to(self.device), budget=budget), ""

    def decode(self, codes: Codes, target: Path) -> str:
        """Write the sound of codes, and give what to say about how it was computed."""
        seconds = codes.source_size.max().item() / self.tokenizer.config.sample_rate
        if chunked := self._for(seconds):
            self.tokenizer.write_pieces(chunked.decode_pieces(codes), target)
            return self._said(chunked, seconds)
        self.tokenizer.write(self.tokenizer.decode(codes.to(self.device)).cpu(), target)
        return ""

    def _for(self, seconds: float) -> Chunked | None:
        """What computes a sound of this length in chunks; None where it is computed whole."""
        from mmtok.tokenizers.chunks import LONG

        return self.chunked if self.always or seconds > LONG else None

    def _said(self, chunked: Chunked, seconds: float, x: Tensor | None = None) -> str:
        from mmtok.tokenizers.chunks import measure

        said = f", in {chunked.count(round(seconds * self.tokenizer.config.sample_rate))} chunks"
        if not chunked.approximate:
            return said
        if x is not None and not self._measured:
            three = measure(chunked, x[..., : 3 * chunked.frames * chunked.hop])
            self._measured = f"; in three chunks {three.ids_differ:.1%} of the ids differ from those of the whole"
        return f"{said} (approximate: {chunked.approximate}{self._measured})"


def _chunk(text: str) -> float | str:
    if text in (AUTO, OFF):
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is no length of a chunk. Give seconds, as 10, or 'auto' or 'off'.")
    return seconds
