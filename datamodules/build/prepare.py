"""What stands between an entry of a source and its samples, for each kind of content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from datamodules.build.source import Entry

Parts = dict[str, bytes]
"""Extension -> content."""


class Prepared(NamedTuple):
    """What became of an entry."""

    samples: list[tuple[str, Parts]]
    """(key, members) of each sample made of it."""
    measures: dict[str, float]
    """What was seen in it; `Preparer.facts` makes of all of them what the manifest says."""
    left_out: str = ""
    """Why there are no samples, where there are none."""


class Preparer:
    """Checks, cuts and re-encodes what a source gives. Called from several threads; keeps what `begin` found."""

    kind: ClassVar[str]
    """As in the manifest: "images", "audio" ..."""
    noun: ClassVar[str]
    """What people call them, in the plural."""
    extensions: ClassVar[tuple[str, ...]]
    """Of the files that are taken as content."""
    companion: ClassVar[bool] = False
    """Whether its files stand beside those of other kinds, as captions and READMEs do: taken where there is nothing
    else, or where it is asked for."""
    options: ClassVar[type]
    """A dataclass of what `mmtok shards build` takes for this kind."""

    def __init__(self, options: Any) -> None:
        self.chosen = options

    def begin(self, training: Sequence[Entry], out: Path) -> None:
        """See the entries of the training set, once, before any is prepared.

        Args:
            training: what goes to `train`.
            out: the folder of the sets, for what must stay beside them.
        """

    def prepare(self, entry: Entry) -> Prepared:
        """Read an entry and make its samples.

        Raises:
            Exception: of nearly any class, where the file is damaged; it is then left out and named.
            ConfigError: nothing can be prepared on this machine, or with these options.
        """
        raise NotImplementedError

    def shown(self) -> dict[str, Any]:
        """The options that show in a sample, for the manifest: they must agree where a build continues."""
        return {name: value for name, value in asdict(self.chosen).items() if value is not None}

    def facts(self, measures: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
        """What goes into the manifest of a set, of the `measures` of its entries by key."""
        return {}

    def remarks(self, facts: Mapping[str, Any]) -> list[str]:
        """Lines of the report about a set that a person should read."""
        return []
