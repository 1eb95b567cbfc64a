"""Write a tokenizer as a model of another library, which loads it without mmtok.

  mmtok export runs/codec --as hf-dac -o models/codec

OUT becomes a folder for `DacModel.from_pretrained(OUT)` (or `EncodecModel`), with a preprocessor_config.json. Latents,
codes and sounds are the tokenizer's; what the class cannot express is refused, by the names of the fields.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.files import refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mmtok.export.formats import WRITTEN

    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory, a checkpoint or an import")
    parser.add_argument("--as", dest="form", required=True, choices=list(WRITTEN), help="of which library and class")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the model")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that exists")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.folder import CONFIG, PREPROCESSOR, write_native
    from mmtok.export.formats import WRITTEN
    from mmtok.loading import load

    tokenizer = load(args.tokenizer, raw=args.raw)
    form = WRITTEN[args.form]
    targets = {Path(name): args.out / name for name in (form.WEIGHTS, PREPROCESSOR, CONFIG)}
    refuse_existing(targets, args.overwrite)
    write_native(tokenizer, args.out, args.form)
    print(f"{args.tokenizer} -> {args.out}: {form.LIBRARY}.{form.MODEL}.from_pretrained('{args.out}')")
    return 0
