"""Turn files into codes.

  mmtok encode runs/demo cat.jpg dog.png -o codes/

Each FILE becomes OUT/NAME.codes.safetensors: ids (1, L, T), lengths, source_size, and in the header what they mean.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.files import claim, outputs

CODES = ".codes.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory or a checkpoint")
    parser.add_argument("files", nargs="+", metavar="FILE", help="signals to encode")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the codes")
    parser.add_argument("--budget", type=int, metavar="LEVELS", help="levels to keep, where the quantizer has several")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    parser.add_argument("--overwrite", action="store_true", help="replace codes that exist")


def run(args: argparse.Namespace) -> int:
    paths = outputs(args.files, args.out, lambda path: path.stem + CODES)
    claim(paths, args.out, args.overwrite)
    from mmtok.loading import load

    tokenizer = load(args.tokenizer, device=args.device)
    if not tokenizer.quantizer.codebook_sizes:
        raise ValueError(f"{args.tokenizer} was trained without codes, so there are none to write. Use a quantizer.")
    spec, fingerprint = tokenizer.spec, tokenizer.fingerprint()
    for source, target in paths.items():
        codes = tokenizer.encode(tokenizer.preprocess(source).to(args.device), budget=args.budget)
        codes.save(target, spec, tokenizer=fingerprint, source=source.name)
        levels, positions = codes.ids.shape[1:]
        print(f"{source} -> {target}: {positions} positions x {levels} levels")
    return 0
