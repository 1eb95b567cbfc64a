"""What `mmtok evaluate` is pointed at: a tokenizer, its data, and the kind of signals that says how to measure it."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from mmtok.cli.options import Options

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from mmtok.codes import CodeSpec
    from mmtok.config import RunConfig
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.tokenizers.base import Tokenizer

KINDS = {
    "pictures": "mmtok.cli.pictures", "sounds": "mmtok.cli.sounds", "texts": "mmtok.cli.texts",
    "text bytes": "mmtok.cli.text_bytes", "vectors": "mmtok.cli.vectors",
}  # fmt: skip
"""Kind of signals, as messages name it -> the module that measures it, a `Kind`. The first that takes a tokenizer does
it."""


class Kind(Protocol):
    """What a module of `KINDS` has."""

    OPTIONS: Options
    """Those that only some kinds take."""
    EXAMPLES: int
    """Items to show, spread over the set."""

    @staticmethod
    def takes(tokenizer: Tokenizer) -> bool:
        """Whether this is a tokenizer of such signals."""

    @staticmethod
    def data_of(spec: CodeSpec, common: Mapping[str, Any]) -> DataConfig:
        """The data of a tokenizer without a run; `common` are the fields all data have."""

    @staticmethod
    def adjust(data: DataConfig, args: argparse.Namespace) -> DataConfig:
        """The data as the options want them."""

    @staticmethod
    def measure(job: Job) -> None:
        """Measure, write the report to `job.target`, draw, and tell.

        Raises:
            ValueError: an option that does not fit this tokenizer.
        """


class Subject(NamedTuple):
    """What is measured, on what, and where its reports go."""

    tokenizer: Tokenizer
    data: DataConfig
    folder: Path
    config: RunConfig | None = None
    """Of a training; None of a fitted or imported tokenizer."""
    step: int | None = None
    weights: str = "imported"


@dataclass(frozen=True)
class Job:
    """One measurement, ready to start."""

    subject: Subject
    held_out: HeldOut
    args: argparse.Namespace
    notes: Mapping[str, Any]
    """What the report says of the run and the data."""
    target: Path
    """The JSON file; what is drawn goes beside it."""
    device: str

    @property
    def tokenizer(self) -> Tokenizer:
        return self.subject.tokenizer


def kinds() -> dict[str, Any]:
    """Every kind's module by its name; they are `Kind`s, which mypy cannot see of modules."""
    return {name: importlib.import_module(module) for name, module in KINDS.items()}


def kind_of(tokenizer: Tokenizer) -> str:
    """The kind of signals of a tokenizer.

    Raises:
        ValueError: nothing is known of its modality.
    """
    for name, module in kinds().items():
        if module.takes(tokenizer):
            return name
    raise ValueError(
        f"evaluate measures {', '.join(KINDS)}; this tokenizer is of modality '{tokenizer.spec.modality}'."
    )


def subject_of(args: argparse.Namespace) -> Subject:
    """What `args.run` names: a run, one of its checkpoints, or an import."""
    from mmtok.export.folder import is_model

    return _imported(args) if is_model(args.run) else _trained(args)


def _trained(args: argparse.Namespace) -> Subject:
    """The tokenizer of a run, and its own data."""
    from mmtok.config import FitConfig, parse_any
    from mmtok.loading import home_of, open_checkpoint, tokenizer_of
    from mmtok.tokenizers.predictor import attach

    path, checkpoint, _ = open_checkpoint(args.run)
    config = parse_any(checkpoint["mmtok"]["config"])
    folder = home_of(path)
    if isinstance(config, FitConfig):
        return Subject(tokenizer_of(checkpoint), config.data, folder, weights="fitted")
    weights = "averaged" if config.optim.ema and not args.raw else "as trained"
    tokenizer = attach(tokenizer_of(checkpoint, raw=args.raw), folder)
    return Subject(tokenizer, config.data, folder, config, checkpoint["global_step"], weights)


def _imported(args: argparse.Namespace) -> Subject:
    """A tokenizer without a run, which knows of no data.

    Raises:
        ValueError: no set is named.
    """
    from mmtok.export.folder import read_model
    from mmtok.export.sealed import MANIFEST
    from mmtok.tokenizers.exported import require_whole

    if not args.shards:
        raise ValueError(f"{args.run} was not trained here, so it has no validation set. Name one: --shards SET.")
    tokenizer = read_model(args.run)
    require_whole(tokenizer, f"{args.run} cannot be evaluated")
    common: dict[str, Any] = {"shards": args.shards, "batch_size": 8, "workers": 0}
    data = kinds()[kind_of(tokenizer)].data_of(tokenizer.spec, common)
    folder = Path(args.run)
    sealed = (folder / MANIFEST).is_file()  # a file that is put into a bundle breaks its promises
    return Subject(tokenizer, data, folder.with_name(f"{folder.name}-evaluation") if sealed else folder)
