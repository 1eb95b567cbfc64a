"""Merge, check and print a run's configuration.

mmtok config image/vqvae quantizer/10bit/fsq data.batch_size=128
mmtok config --list
"""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layers", nargs="*", metavar="LAYER|KEY=VALUE", help="recipes, files or runs; then settings")
    parser.add_argument("--list", action="store_true", help="list the layers that ship with mmtok")


def run(args: argparse.Namespace) -> int:
    if args.list:
        from mmtok.resources import recipe_names

        print("\n".join(recipe_names()))
        return 0
    from mmtok.config import dump_yaml, load_any
    from mmtok.layers import split_arguments

    loaded = load_any(*split_arguments(args.layers))
    for key in loaded.dropped:
        print(f"# dropped: {key}, which the chosen name does not have", file=sys.stderr)
    print(dump_yaml(loaded.config), end="")
    return 0
