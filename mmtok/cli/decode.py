"""Turn codes back into files.

mmtok decode runs/demo codes/*.safetensors -o pictures/
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.encode import CODES
from mmtok.cli.files import claim, outputs
from mmtok.cli.tiles import Tiles, add_tile_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="the run directory or checkpoint that encoded them")
    parser.add_argument("files", nargs="+", metavar="FILE", help="codes, as 'mmtok encode' wrote them")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the signals")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    add_tile_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> int:
    from mmtok.codes import Codes, read_header
    from mmtok.loading import load

    tokenizer = load(args.tokenizer, device=args.device)
    paths = outputs(args.files, args.out, lambda path: path.name.removesuffix(CODES) + tokenizer.suffix)
    claim(paths, args.out, args.overwrite)
    tiles = Tiles(tokenizer, args.tile)
    fingerprint = tokenizer.fingerprint()
    for source, target in paths.items():
        codes, spec = Codes.load(source)
        if spec != tokenizer.spec or read_header(source).get("tokenizer", fingerprint) != fingerprint:
            raise ValueError(
                f"{source} was written by another tokenizer than {args.tokenizer} (or by another state of it). "
                "Decode with the one that encoded, or encode again."
            )
        decoder, how = tiles.choose(tuple(codes.source_size.amax(0).tolist()))
        x = decoder.decode(codes.to(args.device) if decoder is tokenizer else codes)
        tokenizer.write(x.cpu(), target)
        print(f"{source} -> {target}{how}")
    return 0
