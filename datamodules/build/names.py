"""What `mmtok shards build SOURCE` can name: a path, or KIND:NAME."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from datamodules.build.audio_datasets import KNOWN_SOUNDS, SoundDatasetSource
from datamodules.build.datasets import KNOWN, DatasetSource
from datamodules.build.debian import DebianSource
from datamodules.build.fixture import DEFAULT, FIXTURES, FixtureSource
from datamodules.build.folder import FolderSource
from datamodules.build.package_index import PackageIndex
from datamodules.build.presets import PRESETS
from datamodules.build.rows import TABLES, RowsSource
from datamodules.build.source import ANYTHING, Source, Wanted

CATALOGUES: dict[str, tuple[str, Callable[[Path], Source]]] = {
    "debian:packages": ("descriptions of some 60,000 packages, queries, dependencies, 16 MB", PackageIndex),
}
"""Sources of texts with tables beside them: what each is, and what opens it with a cache folder."""


def source_names() -> dict[str, str]:
    """Every name known by heart, with a line about it."""
    fixtures = {f"fixture:{name}": f"{about}, {licence}" for name, (about, licence) in FIXTURES.items()}
    packages = {f"debian:{name}": f"{preset.about}, {preset.licence}" for name, preset in PRESETS.items()}
    packages |= {name: about for name, (about, _) in CATALOGUES.items()}
    sounds = {f"torchaudio:{name}": known.about for name, known in KNOWN_SOUNDS.items()}
    datasets = {f"torchvision:{name}": f"torchvision's {known.cls}" for name, known in KNOWN.items()}
    return {"fixture": f"the same as fixture:{DEFAULT}"} | fixtures | packages | datasets | sounds


def open_source(source: str, cache: Path, wanted: Wanted = ANYTHING) -> Source:
    """The source behind a name or a path.

    Args:
        source: a folder, a zip, a .deb, a table (.npy, .parquet, .csv, .jsonl), or `fixture`, `fixture:NAME`,
            `debian:NAME`, `torchvision:NAME`, `torchaudio:NAME`.
        cache: folder for what is downloaded.
        wanted: what to take of it, where it holds several things.

    Raises:
        ValueError: nothing is known by that name; says which is nearest. Or it cannot be had; says what helps.
    """
    kind, _, name = source.partition(":")
    if kind == "fixture":
        return FixtureSource(name or DEFAULT)
    if source in CATALOGUES:
        return CATALOGUES[source][1](cache / "debian")
    if kind == "debian":
        return DebianSource(name, cache / "debian", wanted)
    if kind == "torchvision":
        return DatasetSource(name, cache / "torchvision")
    if kind == "torchaudio":
        return SoundDatasetSource(name, cache / "torchaudio", wanted)
    path = Path(source).expanduser()
    if path.is_dir() or (path.suffix.lower() == ".zip" and path.is_file()):
        return FolderSource(path, wanted)
    if path.is_file() and path.suffix[1:].lower() in TABLES:
        return RowsSource(path, wanted)
    if path.is_file() and path.suffix == ".deb":
        return DebianSource(str(path), cache / "debian", wanted)
    if path.is_file():
        known = f"folder, zip, .deb or table (.{', .'.join(TABLES)})"
        remedy = f"mmtok shards index {source}" if path.suffix == ".tar" else "Give one of them."
        raise ValueError(f"{source} is no {known}. {remedy}")
    raise ValueError(f"there is no folder or file '{source}', and no source of that name.{_nearest(source)}")


def _nearest(source: str) -> str:
    """The known name that is meant, whether or not its kind was given."""
    spelled = {spelling: name for name in source_names() for spelling in (name, name.partition(":")[2] or name)}
    near = difflib.get_close_matches(source, spelled, n=1, cutoff=0.6)
    return f" Did you mean {spelled[near[0]]}?" if near else f" Known: {', '.join(source_names())}."
