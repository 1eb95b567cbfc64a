"""Lay codes and texts out as ids of a vocabulary, for the data loader of a language model.

  mmtok pack tokens/photos --vocab vocab --to megatron -o packed
  mmtok pack tokens/photos --vocab vocab --order text,image --order image,text --to parquet --length 4096 -o packed
  mmtok pack tokens/speech data/texts --vocab vocab --order text,audio --to litdata --length 2048 -o packed

Parts of one key make a document, [bos] parts [eos], for each --order that it has all parts of. Rows of --length hold
whole documents and padding; only a text longer than a row is cut. What was written, left out and padded is in
OUT/pack.json. Codes of another tokenizer than the vocabulary was made for are refused.
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mmtok.export.pack import FORMATS

    parser.add_argument("files", nargs="+", metavar="CODES", help="sets that mmtok tokenize wrote, or sets with texts")
    parser.add_argument("--vocab", required=True, metavar="DIR", help="a vocabulary that mmtok vocab merge wrote")
    parser.add_argument("--to", required=True, choices=FORMATS, help="for which data loader")
    parser.add_argument("-o", "--out", required=True, metavar="OUT", help="folder for the pack")
    parser.add_argument("--length", type=int, metavar="N", help="ids of a row; without it a row is a document")
    parser.add_argument(
        "--order", action="append", default=[], metavar="PART,...",
        help="parts of a document: text, image, audio, or prefixes; several times for several documents of a key "
        "(default: the codes of all sets, without texts)",
    )  # fmt: skip
    parser.add_argument("--text", default="txt", metavar="EXT", help="member with the text (default: txt)")
    parser.add_argument(
        "--long",
        choices=("split", "drop"),
        help="documents longer than a row (default: split texts, drop others)",
    )
    parser.add_argument("--eos", default="", metavar="NAME", help="token that ends a document, if not the tokenizer's")
    parser.add_argument("--no-bos", action="store_true", help="no bos at the beginning of a document")
    parser.add_argument("--overwrite", action="store_true", help="replace a pack that exists")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.pack import FILE, pack

    facts = pack(
        args.files, args.vocab, args.out, to=args.to, length=args.length,
        orders=[tuple(name.strip() for name in order.split(",") if name.strip()) for order in args.order],
        text=args.text, long=args.long, eos=args.eos, bos=not args.no_bos, overwrite=args.overwrite,
    )  # fmt: skip
    for name, count in facts.missing.items():
        print(f"mmtok: {count:,} of {facts.keys:,} samples lack a part ({name})", file=sys.stderr)
    for key, reason in facts.bad[:5]:
        print(f"mmtok: left out {key}: {reason}", file=sys.stderr)
    if facts.bad:
        print(f"mmtok: {len(facts.bad)} samples left out; all are named in {args.out}/{FILE}", file=sys.stderr)
    if facts.long:
        done = f"{facts.dropped:,} left out" if facts.dropped else "cut into rows"
        print(f"mmtok: {facts.long:,} documents are longer than {facts.length:,} ids: {done}", file=sys.stderr)
    share = facts.padding / (facts.padding + facts.tokens)
    padding = f", {share:.1%} padding" if facts.length else ""
    print(f"{facts.documents:,} documents, {facts.tokens:,} ids -> {facts.rows:,} rows{padding}")
    print(f"{args.out}: {facts.dtype} ids of a vocabulary of {facts.vocabulary_size:,}, for {facts.format}")
    return 0
