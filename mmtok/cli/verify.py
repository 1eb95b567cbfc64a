"""Look whether a bundle keeps what it promises: its files, their agreement, and the codes of its golden inputs.

  mmtok verify out/image-f16

Golden inputs are encoded and decoded by mmtok and, in a process where mmtok and Lightning are absent, by transformers
with the bundle's own sources, which are run: verify what you would load. What is broken is named; the exit status is
then 1.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", metavar="BUNDLE", help="a folder that mmtok export wrote")
    parser.add_argument("--no-code", action="store_true", help="do not run the bundle's own sources")


def run(args: argparse.Namespace) -> int:
    from mmtok.export.verify import verify

    broken = verify(args.bundle, say=print, run_code=not args.no_code)
    for promise in broken:
        print(f"BROKEN {promise}")
    print(f"{args.bundle}: " + (f"{len(broken)} broken promises" if broken else "all promises are kept"))
    return 1 if broken else 0
