"""Turn files into codes.

  mmtok encode runs/demo cat.jpg dog.png -o codes/

Each FILE becomes OUT/NAME.codes.safetensors: ids (1, L, T), lengths, source_size, and in the header what they mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.files import claim, outputs
from mmtok.cli.tiles import Tiles, add_tile_argument

CODES = ".codes.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory or a checkpoint")
    parser.add_argument("files", nargs="+", metavar="FILE", help="signals to encode")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the codes")
    parser.add_argument("--budget", type=int, metavar="LEVELS", help="levels to keep, where the quantizer has several")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    add_tile_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace codes that exist")


def run(args: argparse.Namespace) -> int:
    paths = outputs(args.files, args.out, lambda path: path.stem + CODES)
    claim(paths, args.out, args.overwrite)
    from mmtok.loading import load

    tokenizer = load(args.tokenizer, device=args.device)
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(f"{args.tokenizer} was trained without codes, so there are none to write. Use a quantizer.")
    tiles = Tiles(tokenizer, args.tile)
    spec, fingerprint = tokenizer.spec, tokenizer.fingerprint()
    for source, target in paths.items():
        x = tokenizer.preprocess(source)
        encoder, how = tiles.choose(tuple(x.shape[2:]))
        # Tiles go to the device one by one: there need be no room for the whole.
        codes = encoder.encode(x.to(args.device) if encoder is tokenizer else x, budget=args.budget)
        codes.save(target, spec, tokenizer=fingerprint, source=source.name)
        levels, positions = codes.ids.shape[1:]
        print(f"{source} -> {target}: {positions} positions x {levels} levels{how}")
    return 0
