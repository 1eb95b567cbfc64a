"""Write a tokenizer as a bundle, which mmtok and transformers load, or as a model of another library.

  mmtok export runs/vqgan out/image-f16
  mmtok export runs/codec out/voices --encoder-only --prefix voice --layout parallel
  mmtok export runs/seen out/seen --role understanding     # its tokens are read and never written
  mmtok export runs/rqvae out/packages --items data/packages/train,data/packages/val
  mmtok export runs/codec --as hf-dac -o models/codec
  mmtok export runs/bpe out/text                       # a vocabulary: AutoTokenizer.from_pretrained(OUT)

A bundle is a folder with weights, sources, the contract with a language model (token_spec.json), golden inputs and a
card; transformers loads it where mmtok is absent: AutoModel.from_pretrained(OUT, trust_remote_code=True). With --as,
OUT is for a class of another library; what that cannot express is refused, by the names of the fields.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from mmtok.cli.files import refuse_existing

if TYPE_CHECKING:
    from mmtok.corpus import Corpus, Method
    from mmtok.export.provenance import Provenance
    from mmtok.tokenizers.base import Tokenizer
    from mmtok.tokenizers.subword import SubwordTokenizer

BUNDLE_ONLY = (
    "encoder_only",
    "decoder_only",
    "torch_export",
    "prefix",
    "role",
    "layout",
    "order",
    "delays",
    "rows",
    "header",
    "items",
    "collisions",
    "extra_size",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from mmtok.export.formats import WRITTEN

    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory, a checkpoint, an import or a bundle")
    parser.add_argument("place", nargs="?", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("-o", "--out", type=Path, metavar="OUT", help="the same")
    parser.add_argument("--as", dest="form", choices=list(WRITTEN), help="a model of which library and class")
    parser.add_argument("--raw", action="store_true", help="the weights as trained instead of their average")
    parser.add_argument(
        "--digits", type=int, metavar="N", help="keep the leading N digits of codes alone, a smaller vocabulary; of "
        "lfq, bsq or fsq that was trained with dropout"
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what exists")
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--encoder-only", action="store_true", help="leave the decoder out")
    half.add_argument("--decoder-only", action="store_true", help="leave the encoder out")
    parser.add_argument("--torch-export", action="store_true", help="add programs of torch.export: *.pt2")
    contract = parser.add_argument_group("the contract with a language model (token_spec.json)")
    contract.add_argument("--prefix", metavar="WORD", help="of its tokens' names: img gives <|img:00042|>")
    contract.add_argument(
        "--role",
        choices=("generation", "understanding", "both"),
        help="what ids are for: understanding, to be read alone",
    )
    contract.add_argument("--layout", choices=("flat", "parallel", "own_head"), help="one sequence, or a row a level")
    contract.add_argument("--order", choices=("position_major", "level_major"), help="flat: what follows what")
    contract.add_argument("--delays", type=int, nargs="+", metavar="N", help="parallel: positions a level comes late")
    contract.add_argument("--rows", action="store_true", help="pictures: a token after each row but the last")
    contract.add_argument("--header", action="store_true", help="pictures: their height and width before the codes")
    corpus = parser.add_argument_group("the items of a tokenizer of vectors (item_to_codes.parquet, trie.json)")
    corpus.add_argument("--items", metavar="SET[,SET]", help="shard sets whose vectors are coded, and go along")
    corpus.add_argument(
        "--collisions", choices=("extra", "sinkhorn", "sinkhorn+extra", "none"),
        help="items of the same codes: a further level numbers them (default); other last codes part them, but for "
        "equal vectors; both; or they are left",
    )  # fmt: skip
    corpus.add_argument("--extra-size", type=int, metavar="N", help="ids of that level (default 256)")


def run(args: argparse.Namespace) -> int:
    if (args.place is None) == (args.out is None):
        raise ValueError("name one folder to write: mmtok export TOKENIZER OUT.")
    out = args.place or args.out
    if args.form:
        if given := [name for name in BUNDLE_ONLY if getattr(args, name)]:
            raise ValueError(f"--{given[0].replace('_', '-')} is for bundles, and --as {args.form} writes none.")
        return native(args, out)
    return bundle(args, out)


def native(args: argparse.Namespace, out: Path) -> int:
    from mmtok.export.folder import CONFIG, PREPROCESSOR, write_native
    from mmtok.export.formats import WRITTEN
    from mmtok.loading import load
    from mmtok.tokenizers.fitted import FittedTokenizer

    tokenizer = load(args.tokenizer, raw=args.raw, digits=args.digits)
    if isinstance(tokenizer, FittedTokenizer):
        raise ValueError(f"--as {args.form} is for what was trained, and {args.tokenizer} was fitted. Leave --as out.")
    form = WRITTEN[args.form]
    targets = {Path(name): out / name for name in (form.WEIGHTS, PREPROCESSOR, CONFIG)}
    refuse_existing(targets, args.overwrite)
    write_native(tokenizer, out, args.form)
    print(f"{args.tokenizer} -> {out}: {form.LIBRARY}.{form.MODEL}.from_pretrained({str(out)!r})")
    return 0


def vocabulary(args: argparse.Namespace, out: Path, tokenizer: SubwordTokenizer, provenance: Provenance) -> int:
    """A tokenizer of text that was fitted: what it holds is read by others as it stands."""
    from mmtok.export.text import write_text

    if given := [name for name in BUNDLE_ONLY if getattr(args, name)]:
        raise ValueError(f"--{given[0].replace('_', '-')} is for bundles, and a vocabulary of text is exported whole.")
    write_text(tokenizer, out, provenance=provenance, overwrite=args.overwrite)
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    count = tokenizer.spec.codebook_sizes[0]
    print(f"{args.tokenizer} -> {out}: {count:,} tokens, {size:.1f} MB, tokenizer {tokenizer.fingerprint()}")
    print(f"AutoTokenizer.from_pretrained({str(out)!r}); mmtok verify {quote(str(out))}")
    return 0


def bundle(args: argparse.Namespace, out: Path) -> int:
    from mmtok.export.bundle import Part, write_bundle
    from mmtok.export.drafts import refuse_taken
    from mmtok.export.golden import read_golden
    from mmtok.export.provenance import read_origin
    from mmtok.export.sealed import MANIFEST
    from mmtok.export.token_spec import TokenSpec
    from mmtok.tokenizers.subword import SubwordTokenizer

    tokenizer, provenance = read_origin(args.tokenizer, raw=args.raw, digits=args.digits)
    if isinstance(tokenizer, SubwordTokenizer):
        return vocabulary(args, out, tokenizer, provenance)

    part: Part = "encoder" if args.encoder_only else "decoder" if args.decoder_only else "both"
    contract = inherited(Path(args.tokenizer), args.role) | choices(args)
    prefix = contract.pop("prefix", "")
    refuse_taken(out, MANIFEST, args.overwrite)  # before minutes of coding items
    items = coded(args, tokenizer)
    write_bundle(
        tokenizer,
        out,
        items=items,
        part=part,
        prefix=args.prefix or prefix,
        provenance=provenance,
        programs=args.torch_export,
        overwrite=args.overwrite,
        **contract,
    )
    spec = TokenSpec.read(out)
    clear = [float(item.promised.float().mean()) for item in read_golden(out)]
    size = sum(file.stat().st_size for file in out.iterdir()) / 1e6
    print(f"{args.tokenizer} -> {out}: {size:.1f} MB, spec {spec.sha256[:16]}, tokenizer {spec.fingerprint}")
    print(f"golden: {len(clear)} inputs, {sum(clear) / len(clear):.1%} of their ids promised (margin above 1e-4)")
    print(f"AutoModel.from_pretrained({str(out)!r}, trust_remote_code=True); mmtok verify {quote(str(out))}")
    return 0


def coded(args: argparse.Namespace, tokenizer: Tokenizer) -> Corpus | None:
    """The corpus that `--items` asks for.

    Raises:
        ValueError: an option of it without it, or one that makes no sense.
    """
    if not args.items:
        for name in ("collisions", "extra_size"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is of items, and none are named: --items SET.")
        return None
    from mmtok.export.items import code_items

    method: Method = args.collisions or "extra"
    size = args.extra_size
    if size is not None and ("extra" not in method or size < 1):
        raise ValueError(f"--extra-size={size} is of the level that --collisions extra adds, and 1 or more.")
    return code_items(tokenizer, args.items, method=method, extra_size=size or 256, say=print)


def inherited(source: Path, role: str | None = None) -> dict[str, Any]:
    """The fields of a `TokenSpec` that a bundle, exported once more, keeps where nothing else is asked for.

    The usual prefix of its role is not kept where another role is asked for, which has its own.

    Raises:
        ValueError: the bundle is a half, and cannot be made into another.
    """
    from mmtok.export.folder import CONFIG
    from mmtok.export.token_spec import FILE, TokenSpec, usual_prefix
    from mmtok.schema import read_json

    if not (source / FILE).is_file():
        return {}
    part = read_json(source / CONFIG).get("part", "both")
    if part != "both":
        raise ValueError(f"{source} was exported with its {part} alone. Export the whole bundle, or the run.")
    spec = TokenSpec.read(source)
    kept = {name: getattr(spec, name) for name in ("prefix", "layout", "rows", "header", "role")}
    if role not in (None, spec.role) and spec.prefix == usual_prefix(spec.modality, spec.role):
        del kept["prefix"]
    return kept


def choices(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a `TokenSpec` that were asked for."""
    from mmtok.export.token_spec import Layout

    said = {"kind": args.layout, "order": args.order, "delays": tuple(args.delays) if args.delays else None}
    layout = {name: value for name, value in said.items() if value is not None}
    fields: dict[str, Any] = {name: True for name in ("rows", "header") if getattr(args, name)}
    return fields | ({"layout": Layout(**layout)} if layout else {}) | ({"role": args.role} if args.role else {})
