"""Make one vocabulary of a text tokenizer and bundles, for a language model; hold it against the model.

  mmtok vocab merge --base models/llama bundles/image bundles/audio -o vocab --model models/llama --init codebook
  mmtok vocab merge --base out/text -o vocab         # text alone, for mmtok pack
  mmtok vocab check vocab --model models/wide

OUT holds a tokenizer.json that AutoTokenizer loads, with <|img_start|> and <|img:00042|> after the text's tokens;
vocab_map.json, which says where each code stands; and embed_init.safetensors with the rows that the model's embedding
gains. Beyond 100,000 codes they have ids and no names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmtok.cli.files import refuse_existing

if TYPE_CHECKING:
    from mmtok.export.vocab_map import Vocabulary


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="merge|check", required=True)
    merge = actions.add_parser("merge", help="write a vocabulary")
    merge.add_argument("files", nargs="*", metavar="BUNDLE", help="bundles, in the order of their blocks, or none")
    merge.add_argument("--base", required=True, metavar="DIR", help="folder of any fast text tokenizer")
    merge.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the vocabulary")
    width = merge.add_mutually_exclusive_group()
    width.add_argument("--model", metavar="DIR", help="the model that gets it: new rows begin like its own")
    width.add_argument("--hidden", type=int, metavar="N", help="width of a model that is to be trained from scratch")
    merge.add_argument("--init", choices=("mean", "codebook"), help="how rows of codes begin (default: mean)")
    merge.add_argument("--seed", type=int, default=0, metavar="N", help="of what is random in the rows (default: 0)")
    merge.add_argument("--overwrite", action="store_true", help="replace a vocabulary that exists")
    check = actions.add_parser("check", help="hold a vocabulary against its files and a model")
    check.add_argument("out", type=Path, metavar="OUT", help="folder of a vocabulary")
    check.add_argument("--model", metavar="DIR", help="the model that is to use it")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.vocab import check, merge, refuse_others
    from mmtok.export.vocab_map import FILE

    if args.action == "check":
        show(check(args.out, args.model))
        print(f"{args.out} is sound" + (f", and {args.model} has its {FILE}'s size." if args.model else "."))
        return 0
    if args.hidden is not None and args.hidden < 1:
        raise ValueError(f"--hidden={args.hidden} must be the width of a model, 1 or more.")
    if args.out.resolve() == Path(args.base).resolve():
        raise ValueError(f"--out={args.out} is the folder of the base itself. Give another.")
    if args.init and args.model is None and args.hidden is None:
        raise ValueError(
            f"--init={args.init} is of rows whose width nothing tells. Give --model DIR or --hidden N too."
        )
    refuse_existing({Path(FILE): args.out / FILE}, args.overwrite)
    refuse_others(args.out, args.overwrite)
    vocabulary = merge(
        args.base,
        args.files,
        args.out,
        model=args.model,
        hidden=args.hidden,
        how=args.init or "mean",
        seed=args.seed,
        overwrite=args.overwrite,
    )
    show(vocabulary)
    print(f"{' + '.join([str(args.base), *args.files])} -> {args.out}")
    return 0


def show(vocabulary: Vocabulary) -> None:
    """Which ids are what."""
    print(f"{0:>9,} .. {vocabulary.text - 1:>9,}  text")
    for spec, place in zip(vocabulary.specs, vocabulary.places, strict=True):
        print(f"{place.start:>9,} .. {place.pad:>9,}  {spec.special('start')} end row pad")
    for spec, place in zip(vocabulary.specs, vocabulary.places, strict=True):
        named = f"{spec.token(0)} .." if vocabulary.strings else "without names"
        for level, (start, size) in enumerate(zip(place.blocks, spec.codebook_sizes, strict=False)):
            print(f"{start:>9,} .. {start + size - 1:>9,}  {spec.prefix} level {level}, {named if not level else '..'}")
        if not place.blocks:
            print(f"{'':>22}  {spec.prefix}: {sum(spec.codebook_sizes):,} codes with a head of their own")
    print(f"{vocabulary.used:>9,} ids in {vocabulary.size:,} rows")
