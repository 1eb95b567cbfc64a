"""Turn files into codes.

  mmtok encode runs/demo cat.jpg dog.png -o codes/
  mmtok encode runs/speech talk.wav -o codes/ --format mmc
  mmtok encode runs/text notes.txt -o codes/

Each FILE becomes OUT/NAME.codes.safetensors: ids (1, L, T), lengths, source_size, and in the header what they mean. Or
OUT/NAME.mmc: the same in as few bits as the ids need, with a checksum.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmtok.cli.chunks import AUTO, Chunks, add_chunk_argument
from mmtok.cli.files import claim, each, outputs
from mmtok.cli.tiles import Tiles, add_tile_argument

if TYPE_CHECKING:
    from mmtok.codes import Codes
    from mmtok.tokenizers import Tokenizer
    from mmtok.tokenizers.budget import Budget, Quality

SUFFIXES = {"safetensors": ".codes.safetensors", "mmc": ".mmc"}
"""Format -> how the names of its files end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tokenizer", metavar="TOKENIZER", help="a run directory, a checkpoint, an import or a bundle")
    parser.add_argument("files", nargs="+", metavar="FILE", help="signals to encode")
    parser.add_argument("-o", "--out", required=True, type=Path, metavar="OUT", help="folder for the codes")
    parser.add_argument(
        "--format", choices=SUFFIXES, default="safetensors", help="of the codes: safetensors (default), or mmc, smaller"
    )
    parser.add_argument(
        "--budget", type=str, metavar="N|NAME=N", help="how much of a code to keep: a number of levels, or tokens=64, "
        "bits=1000, psnr=30 (pictures) or snr=12 (any signal), of each file for itself; psnr=30,predicted or "
        "psnr=30,predicted=0.9 searches nothing"
    )  # fmt: skip
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda)")
    add_tile_argument(parser)
    add_chunk_argument(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace codes that exist")


def coder(tokenizer: Tokenizer, args: argparse.Namespace) -> Tiles | Chunks | Whole:
    """What encodes and decodes files with a tokenizer.

    Raises:
        ValueError: an option of another modality was given.
    """
    modality = tokenizer.spec.modality
    if args.tile != AUTO and modality != "image":
        raise ValueError(f"--tile is for pictures, and this tokenizer is of modality '{modality}'. Leave it out.")
    if args.chunk != AUTO and modality != "audio":
        raise ValueError(f"--chunk is for sounds, and this tokenizer is of modality '{modality}'. Leave it out.")
    return CODERS.get(modality, lambda tokenizer, args: Whole(tokenizer))(tokenizer, args)


class Whole:
    """Encodes and decodes files that are never computed in parts, or whose tokenizer sees to that itself."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def encode(self, source: Path, budget: int | Budget | None) -> tuple[Codes, str]:
        """Codes of a file, and nothing to say about it."""
        return self.tokenizer.encode(self.tokenizer.preprocess(source), budget=budget), ""

    def decode(self, codes: Codes, target: Path) -> str:
        """Write what codes decode to."""
        device = next(iter([*self.tokenizer.parameters(), *self.tokenizer.buffers()])).device
        self.tokenizer.write(self.tokenizer.decode(codes.to(device)), target)
        return ""


CODERS: dict[str, Callable[[Any, argparse.Namespace], Tiles | Chunks | Whole]] = {
    "image": lambda tokenizer, args: Tiles(tokenizer, args.tile),
    # Optimized: half a second, and a quarter to a half faster from then on.
    "audio": lambda tokenizer, args: Chunks(tokenizer.optimize(), args.chunk),
}
"""Modality -> what encodes and decodes its files; those of others are taken whole."""


def run(args: argparse.Namespace) -> int:
    paths = outputs(args.files, args.out, lambda path: path.stem + SUFFIXES[args.format])
    claim(paths, args.out, args.overwrite)
    from mmtok.loading import load
    from mmtok.tokenizers.budget import Quality, budget_of
    from mmtok.tokenizers.container import write_mmc

    tokenizer = load(args.tokenizer, device=args.device)
    if not tokenizer.spec.codebook_sizes:
        raise ValueError(f"{args.tokenizer} was trained without codes, so there are none to write. Use a quantizer.")
    files, budget = coder(tokenizer, args), budget_of(args.budget)
    spec, fingerprint = tokenizer.spec, tokenizer.fingerprint()

    def convert(source: Path, target: Path) -> str:
        codes, how = files.encode(source, budget)
        facts = {"tokenizer": fingerprint, "source": source.name}
        if args.format == "mmc":
            write_mmc(codes, target, spec, **facts)
        else:
            codes.save(target, spec, **facts)
        levels, positions = codes.ids.shape[1], int(codes.lengths.amax())  # a file of vectors holds several items
        there = int((codes.ids >= 0).any(2).any(0).sum())
        kept = f"{there} of {levels}" if there < levels else f"{levels}"
        # What was searched for was decoded; what was predicted need not be, and half a bundle cannot.
        reads = ""
        if isinstance(budget, Quality) and budget.decodes:
            reads = read_back(budget, tokenizer, source, codes)
        return f": {positions} positions x {kept} levels{reads}{how}"

    return each(paths, convert)


def read_back(budget: Quality, tokenizer: Tokenizer, source: Path, codes: Codes) -> str:
    """What codes of a wanted quality read, and whether that falls short."""
    reached = float(budget.reached(tokenizer, tokenizer.preprocess(source), codes).amin())
    return f", {reached:.1f} dB" + ("" if reached >= budget.target else f", short of {budget.target:g}")
