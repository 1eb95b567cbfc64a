"""Turn codes back into files.

mmtok decode runs/demo codes/*.safetensors -o pictures/
mmtok decode runs/speech codes/*.mmc -o sounds/
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmtok.cli.chunks import add_chunk_argument
from mmtok.cli.encode import SUFFIXES, coder
from mmtok.cli.files import claim, each, outputs
from mmtok.cli.tiles import add_tile_argument

if TYPE_CHECKING:
    from mmtok.codes import Codes, CodeSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="the run, checkpoint or import that encoded them")
    parser.add_argument("files", nargs="+", metavar="FILE", help="codes, as 'mmtok encode' wrote them")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="folder for the signals")
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    add_tile_argument(parser)
    add_chunk_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")


def run(args: argparse.Namespace) -> int:
    from mmtok.loading import load

    tokenizer = load(args.tokenizer, device=args.device)
    paths = outputs(args.files, args.out, lambda path: _stem(path) + tokenizer.suffix)
    claim(paths, args.out, args.overwrite)
    files = coder(tokenizer, args)
    fingerprint = tokenizer.fingerprint()

    def convert(source: Path, target: Path) -> str:
        codes, spec, facts = _read(source)
        if spec != tokenizer.spec or facts.get("tokenizer", fingerprint) != fingerprint:
            raise ValueError(
                f"{source} was written by another tokenizer than {args.tokenizer} (or by another state of it). "
                "Decode with the one that encoded, or encode again."
            )
        return files.decode(codes, target)

    return each(paths, convert)


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(end) for end in SUFFIXES.values() if path.name.endswith(end)), path.name)


def _read(path: Path) -> tuple[Codes, CodeSpec, dict[str, str]]:
    """Codes in either format, told apart by their content."""
    from mmtok.codes import Codes, read_header
    from mmtok.tokenizers.container import is_mmc, read_mmc

    return read_mmc(path) if is_mmc(path) or path.suffix == ".mmc" else (*Codes.load(path), read_header(path))
