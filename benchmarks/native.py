"""Weights of other libraries' models and of tokenizers are the same, at published size, in both directions.

    python -m benchmarks.native [--only NAME ...] [--out FILE]

One row a format and direction: weights drawn here, written by `mmtok export --as` and loaded by the library; or drawn
there, saved by the library and read by `mmtok import`. One second of noise, or one picture. Errors are the largest, of
latents and of outputs decoded from the same ids; ids are compared where the best code is nearer than the second by
1e-4 in squared distance, at their level and all before it. Exits with 1 where an error exceeds 1e-5 or an id differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.copies import PUBLISHED, Way, copied, decisive
from benchmarks.tables import table

TOLERANCE = 1e-5
HEADER = ["model", "weights", "parameters", "levels z, y", "latents", "outputs", "ids that differ", "ties"]


@torch.inference_mode()
def row(name: str, way: Way) -> tuple[list[str], bool]:
    """One line of the table, and whether everything is equal."""
    with torch.inference_mode(False), torch.no_grad():
        pair = copied(name, way)
    ours, theirs = pair.ours, pair.theirs
    x = theirs.input(torch.Generator().manual_seed(0))
    codes = ours.encode(x)
    z, other = ours.embed(x).z, theirs.latents(x)
    if z.shape != other.shape:  # what is one layer there is a projection of the quantizer here
        z = ours.quantizer.project_in(z)  # type: ignore[operator]
    ids = theirs.encode(x)
    compared = decisive(ours.quantizer, ours.embed(x).z)
    y, output = ours.decode(replace(codes, ids=ids)), theirs.decode(ids)
    # Fewer samples where strides are odd, as DAC's weights have it; ours are filled with silence (audio.md trap 23).
    y, silent = y[..., : output.shape[-1]], y[..., output.shape[-1] :]
    assert not silent.any()
    errors = (z - other).abs().max().item(), (y - output).abs().max().item()
    differ = int((codes.ids != ids)[compared].sum())
    parameters = sum(tensor.numel() for tensor in ours.parameters()) / 1e6
    said = [
        PUBLISHED[name].title,
        "ours to theirs" if way == "to" else "theirs to ours",
        f"{parameters:.1f} M",
        f"{z.std().item():.2f}, {y.std().item():.2f}",
        *(f"{error:.1e}" for error in errors),
        f"{differ} of {int(compared.sum()):,}",
        str(int((~compared).sum())),
    ]
    return said, max(errors) <= TOLERANCE and not differ and bool(compared.any())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED), help="some of them")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    args = parser.parse_args(arguments)
    logging.disable(logging.WARNING)  # diffusers asks for accelerate
    torch.set_num_threads(1)
    rows, holds = [], True
    for name in args.only:
        for way in PUBLISHED[name].ways:
            line, equal = row(name, way)
            rows.append(line)
            holds &= equal
            print(".", end="", file=sys.stderr, flush=True)
    print("\n" + table(HEADER, rows))
    print("\nall equal" if holds else "\nNOT equal: an error above 1e-5, or an id")
    print(", ".join(f"{package} {version(package)}" for package in ("torch", "transformers", "diffusers")))
    if args.out:
        args.out.write_text(json.dumps({"equal": holds, "header": HEADER, "rows": rows}, indent=1) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
