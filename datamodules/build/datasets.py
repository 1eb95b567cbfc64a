"""torchvision's datasets, by name, for machines that reach their hosts. torchvision downloads and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.build.deb import OFFLINE
from datamodules.build.pictures import encode, on_white
from datamodules.build.source import Entry, Source
from mmtok.schema import suggest

TRAIN_FLAG: Mapping[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
SPLIT_NAME: Mapping[str, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
ALL_VAL: Mapping[str, dict[str, Any]] = {
    "train": {"split": "train"},
    "val": {"split": "val"},
    "test": {"split": "test"},
}


@dataclass(frozen=True)
class Known:
    """One dataset of torchvision."""

    cls: str
    """Name of the class in `torchvision.datasets`."""
    splits: Mapping[str, dict[str, Any]]
    """Set -> the arguments that select it; empty where the dataset has no sets."""
    extension: str = "png"
    """What the decoded pictures are written as."""


KNOWN = {
    "cifar10": Known("CIFAR10", TRAIN_FLAG),
    "cifar100": Known("CIFAR100", TRAIN_FLAG),
    "mnist": Known("MNIST", TRAIN_FLAG),
    "fashion-mnist": Known("FashionMNIST", TRAIN_FLAG),
    "kmnist": Known("KMNIST", TRAIN_FLAG),
    "svhn": Known("SVHN", SPLIT_NAME),
    "stl10": Known("STL10", SPLIT_NAME),
    "eurosat": Known("EuroSAT", {}, "jpg"),
    "food101": Known("Food101", SPLIT_NAME, "jpg"),
    "flowers102": Known("Flowers102", ALL_VAL, "jpg"),
    "dtd": Known("DTD", ALL_VAL, "jpg"),
}


class DatasetSource(Source):
    """A dataset of torchvision, downloaded into the cache folder the first time."""

    def __init__(self, name: str, cache: Path) -> None:
        """Checks the name and that torchvision is there.

        Raises:
            ValueError: unknown name, or no torchvision.
        """
        if name not in KNOWN:
            raise ValueError(f"there is no torchvision dataset '{name}' here.{suggest(name, KNOWN)}")
        try:
            import torchvision
        except ImportError:
            raise ValueError("torchvision is not installed. Install it: pip install 'mmtok[train]'") from None
        self.name, self.known, self.cache = name, KNOWN[name], cache
        licence = "see the dataset's own page"
        super().__init__({"kind": "torchvision", "name": name, "version": torchvision.__version__, "licence": licence})

    def entries(self) -> list[Entry]:
        entries = []
        for split, arguments in self._splits():
            dataset = self._open(arguments)
            classes = getattr(dataset, "classes", None)
            read = partial(_read, dataset, self.known.extension)
            for i, target in enumerate(_targets(dataset)):
                label = None if target is None else classes[target] if classes else f"{target:03d}"
                key = f"{split}/{i:06d}" if split else f"{i:06d}"
                entries.append(Entry(key, group=key, read=partial(read, i), label=label, split=split))
        return entries

    def _splits(self) -> list[tuple[str | None, dict[str, Any]]]:
        return list(self.known.splits.items()) or [(None, {})]

    def _open(self, arguments: Mapping[str, Any]) -> Any:
        import torchvision.datasets

        folder = self.cache / self.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return getattr(torchvision.datasets, self.known.cls)(str(folder), download=True, **arguments)
        except (OSError, RuntimeError) as error:  # URLError is an OSError; a failed checksum is a RuntimeError
            raise ValueError(
                f"torchvision could not fetch '{self.name}': {error}. Is this machine online? {OFFLINE}"
            ) from error


def _targets(dataset: Any) -> list[int | None]:
    """Class numbers without decoding a picture, under whichever name the dataset keeps them."""
    for name in ("targets", "labels", "_labels"):
        if (found := getattr(dataset, name, None)) is not None:
            return [int(target) for target in found]
    return [None] * len(dataset)


def _read(dataset: Any, extension: str, i: int) -> dict[str, bytes]:
    return {extension: encode(on_white(dataset[i][0]), extension)}
