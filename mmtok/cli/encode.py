"""Turn files into codes.

  mmtok encode runs/demo cat.jpg dog.png -o codes/
  mmtok encode runs/speech talk.wav -o codes/ --format mmc

Each FILE becomes OUT/NAME.codes.safetensors: ids (1, L, T), lengths, source_size, and in the header what they mean. Or
OUT/NAME.mmc: the same in as few bits as the ids need, with a checksum.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmtok.cli.chunks import AUTO, Chunks, add_chunk_argument
from mmtok.cli.files import claim, each, outputs
from mmtok.cli.tiles import Tiles, add_tile_argument

if TYPE_CHECKING:
    from mmtok.tokenizers import Tokenizer

SUFFIXES = {"safetensors": ".codes.safetensors", "mmc": ".mmc"}
"""Format -> how the names of its files end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory, a checkpoint or an import")
    parser.add_argument("files", nargs="+", metavar="FILE", help="signals to encode")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the codes")
    parser.add_argument(
        "--format", choices=SUFFIXES, default="safetensors", help="of the codes: safetensors (default), or mmc, smaller"
    )
    parser.add_argument("--budget", type=int, metavar="LEVELS", help="levels to keep, where the quantizer has several")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    add_tile_argument(parser)
    add_chunk_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace codes that exist")


def coder(tokenizer: Tokenizer, args: argparse.Namespace) -> Tiles | Chunks:
    """What encodes and decodes files with a tokenizer.

    Raises:
        ValueError: an option of another modality was given.
    """
    from mmtok.tokenizers.audio import AudioTokenizer

    if isinstance(tokenizer, AudioTokenizer):
        if args.tile != AUTO:
            raise ValueError("--tile is for pictures, and this tokenizer is for sounds. Use --chunk SECONDS.")
        # Half a second, and a quarter to a half faster from then on.
        return Chunks(tokenizer.optimize(), args.chunk)
    if args.chunk != AUTO:
        raise ValueError("--chunk is for sounds, and this tokenizer is for pictures. Use --tile PIXELS.")
    return Tiles(tokenizer, args.tile)


def run(args: argparse.Namespace) -> int:
    paths = outputs(args.files, args.out, lambda path: path.stem + SUFFIXES[args.format])
    claim(paths, args.out, args.overwrite)
    from mmtok.loading import load
    from mmtok.tokenizers.container import write_mmc

    tokenizer = load(args.tokenizer, device=args.device)
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(f"{args.tokenizer} was trained without codes, so there are none to write. Use a quantizer.")
    files = coder(tokenizer, args)
    spec, fingerprint = tokenizer.spec, tokenizer.fingerprint()

    def convert(source: Path, target: Path) -> str:
        codes, how = files.encode(source, args.budget)
        facts = {"tokenizer": fingerprint, "source": source.name}
        if args.format == "mmc":
            write_mmc(codes, target, spec, **facts)
        else:
            codes.save(target, spec, **facts)
        levels, positions = codes.ids.shape[1:]
        kept = f"{args.budget} of {levels}" if args.budget and args.budget < levels else f"{levels}"
        return f": {positions} positions x {kept} levels{how}"

    return each(paths, convert)
