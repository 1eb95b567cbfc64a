"""Options that only some tasks or kinds of signals take: added from tables, and refused where they mean nothing."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

Options = Mapping[str, Mapping[str, Any]]
"""'--name' -> what argparse takes beside it. Who shares an option names it with the very same words."""


def add_options(parser: argparse.ArgumentParser, owners: Mapping[str, Options]) -> None:
    """Every option of every owner, once."""
    merged: dict[str, Mapping[str, Any]] = {}
    for options in owners.values():
        for name, words in options.items():
            assert merged.setdefault(name, words) == words, f"{name} means two things"
    for name, words in merged.items():
        parser.add_argument(name, **words)


def refuse_others(args: argparse.Namespace, owners: Mapping[str, Options], chosen: str, why: str) -> None:
    """Refuse what was given and is not the chosen owner's, before minutes of work that would ignore it.

    Args:
        args: the command line.
        owners: as for `add_options`.
        chosen: the owner whose options are welcome.
        why: what was chosen, for the message: "runs/x is for texts".

    Raises:
        ValueError: names the option, and whose it is.
    """
    for name, words in {name: words for options in owners.values() for name, words in options.items()}.items():
        default = words.get("default", False if words.get("action") == "store_true" else None)
        given = getattr(args, name.removeprefix("--").replace("-", "_"))
        if given != default and name not in owners[chosen]:
            whose = " and ".join(owner for owner, options in owners.items() if name in options)
            raise ValueError(f"{name} is of {whose}, and {why}. Leave it out.")
