"""Turn a model of another library into a tokenizer: to encode with, to evaluate, to go on training from.

  mmtok import models/dac_16khz -o imports/dac_16khz
  mmtok encode imports/dac_16khz talk.wav -o codes/

FOLDER is what `model.save_pretrained(FOLDER)` of transformers or `hf download` leaves: a config.json, whose
model_type is dac or encodec, and model.safetensors, in one file or several. The latents, codes and sounds are its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.files import refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="config.json and model.safetensors of a model")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the tokenizer")
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that exists")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.folder import CONFIG, WEIGHTS, is_model, read_model, write_model

    if not is_model(args.folder):
        raise ValueError(f"there is no {CONFIG} in {args.folder}. Give the folder of a model of transformers.")
    if args.out.resolve() == Path(args.folder).resolve():
        raise ValueError(f"--out={args.out} is the folder of the model itself. Give another.")
    targets = {Path(name): args.out / name for name in (WEIGHTS, CONFIG)}
    refuse_existing(targets, args.overwrite)
    tokenizer = read_model(args.folder)
    write_model(tokenizer, args.out, source=str(args.folder))
    print(" | ".join(f"{name} {value}" for name, value in tokenizer.describe().items()))
    print(f"{args.folder} -> {args.out} (tokenizer {tokenizer.fingerprint()})")
    return 0
