"""What the tasks `recommend` and `retrieve` of `mmtok evaluate` share: a corpus, settings, a file of figures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmtok.cli.measuring import place_of

if TYPE_CHECKING:
    from mmtok.corpus import Corpus

T = TypeVar("T")
OPTIONS: dict[str, dict[str, Any]] = {
    "--items": {"metavar": "SET", "help": "shard set of the items and their texts, or several: A,B"},
    "--extra-size": {
        "type": int,
        "default": 256,
        "metavar": "N",
        "help": "ids of the level that numbers items of the same codes (default %(default)s)",
    },
    "--seeds": {"type": int, "default": 3, "metavar": "N", "help": "seeds of every arm (default %(default)s)"},
    "--ask": {
        "action": "append",
        "default": [],
        "metavar": "NAME=VALUE",
        "help": "a setting of the models and their training: updates=300, rates=[0.003]; a wrong name lists all",
    },
}
"""Of both tasks."""


def settings_of(words: Sequence[str], cls: type[T], task: str) -> T:
    """`NAME=VALUE`s as the settings of a task.

    Raises:
        ConfigError: one is not written so, or is no setting.
    """
    from mmtok.layers import load_yaml
    from mmtok.schema import ConfigError, parse

    found = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark:
            raise ConfigError(f"--ask {word}: write NAME=VALUE, for example updates=300.")
        found[name] = load_yaml(value, f"--ask {name}")
    return parse(cls, found, label=task)


def corpus_of(args: argparse.Namespace) -> tuple[Corpus, Path]:
    """The corpus that `args.run` is or has, or its tokenizer makes of `args.items`; and the folder of its figures.

    Raises:
        ValueError: no items are named, or they cannot be coded.
    """
    from mmtok.cli.subject import subject_of
    from mmtok.corpus import PARQUET, Corpus
    from mmtok.export.folder import is_model
    from mmtok.export.sealed import MANIFEST
    from mmtok.loading import load

    path = Path(args.run)
    home = path if path.is_dir() else path.parent
    # A file that is put into a bundle breaks its promises.
    folder = home.with_name(f"{home.name}-evaluation") if (home / MANIFEST).is_file() else home
    if path.suffix == ".parquet" or (path / PARQUET).is_file():
        if args.raw:
            raise ValueError(f"--raw is of a run's weights, and {path} is a corpus that stands. Leave it out.")
        return Corpus.load(path), folder
    if args.items is None:
        raise ValueError(f"{path} is a tokenizer, and needs items to give ids to: --items SET.")
    from mmtok.export.items import code_items

    if is_model(path):
        tokenizer = load(path)
    else:
        tokenizer, folder = (subject := subject_of(args)).tokenizer, subject.folder
    return code_items(tokenizer, args.items, extra_size=args.extra_size, say=print), folder


def begin(args: argparse.Namespace, folder: Path, name: str) -> tuple[Path, str]:
    """The file of figures, which can be written, and the device.

    Raises:
        ValueError: an option that has no meaning here.
    """
    for option in ("shards", "samples"):
        if getattr(args, option) is not None:
            raise ValueError(f"--{option} is of --task reconstruct, and this is --task {args.task}. Leave it out.")
    if args.seeds < 1:
        raise ValueError(f"--seeds={args.seeds} must be at least 1.")
    return place_of(args, folder / "evaluation" / f"{name}.json")
