"""Turn a model of another library into a tokenizer: to encode with, to evaluate, to go on training from.

  mmtok import models/dac_16khz -o imports/dac_16khz
  mmtok import hf-mimi models/mimi -o imports/mimi
  mmtok import taming logs/vqgan_imagenet -o imports/vqgan
  mmtok encode imports/dac_16khz talk.wav -o codes/

PATH is what `model.save_pretrained(PATH)` or `hf download` leaves: a config.json, which says the KIND too, and weights
in safetensors, in one file or several. Of taming it is a run's folder, or a checkpoint with its YAML beside it; nothing
in a checkpoint is executed. Latents, codes and outputs are the model's own; what cannot be expressed is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmtok.cli.files import refuse_existing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mmtok.export.formats import FORMATS

    parser.add_argument("kind", metavar="KIND", nargs="?", choices=list(FORMATS), help=f"one of {', '.join(FORMATS)}")
    parser.add_argument("path", metavar="PATH", type=Path, help="the folder of a model, or a checkpoint of taming")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the tokenizer")
    parser.add_argument("--overwrite", action="store_true", help="replace a tokenizer that exists")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.folder import CONFIG, WEIGHTS, is_model, read_model, write_model
    from mmtok.export.sealed import MANIFEST

    if args.kind is None and not is_model(args.path):
        raise ValueError(
            f"there is no {CONFIG} in {args.path}. Give the folder of a model of transformers or diffusers, or say "
            "what it is: mmtok import taming PATH."
        )
    if (args.path / MANIFEST).is_file():
        raise ValueError(
            f"{args.path} is a bundle, which every verb takes as it is; an import of it would lose what it promises. "
            "Use it where it stands, or copy the folder."
        )
    if args.out.resolve() == args.path.resolve():
        raise ValueError(f"--out={args.out} is the folder of the model itself. Give another.")
    targets = {Path(name): args.out / name for name in (WEIGHTS, CONFIG)}
    refuse_existing(targets, args.overwrite)
    tokenizer = read_model(args.path, args.kind)
    write_model(tokenizer, args.out, source=args.path.resolve().name)
    if facts := tokenizer.describe():
        print(" | ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{args.path} -> {args.out} (tokenizer {tokenizer.fingerprint()})")
    return 0
