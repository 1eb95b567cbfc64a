"""What a report is about: run directories and comparisons, read as they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmtok.compare.files import read_measured
from mmtok.report.log import Log
from mmtok.schema import read_json

CONFIG, LOG, PLAN, RESULTS = "config.yaml", "metrics.csv", "compare.json", "results.json"
LENGTHS = "lengths-"
"""Start of the names of what `evaluate --task lengths` leaves beside evaluations."""


@dataclass(frozen=True)
class Run:
    """One training, or one tokenizer that stands and was measured."""

    name: str
    """As the page calls it: the folder's, or arm and seed."""
    series: str
    """What shares its colour: the arm; a run alone is its own."""
    folder: Path
    config: Mapping[str, Any] = field(default_factory=dict)
    """Resolved; empty of a tokenizer that was not trained here."""
    log: Log = field(default_factory=Log)
    report: Mapping[str, Any] = field(default_factory=dict)
    """Of the last evaluation: samples, metrics, usage, choices."""
    counts: Sequence[Sequence[int]] = ()
    """How often each code occurred in it, a list a level."""
    lengths: Mapping[str, Any] = field(default_factory=dict)
    """What codes cut short are worth, of the last time it was measured."""
    examples: Sequence[tuple[Path, Path]] = ()
    """Inputs and outputs that the evaluation left as files."""
    tokenizer: str = ""
    """Where `mmtok.load` finds it; empty where it is an adapter's."""
    seed: int | None = None
    group: str = ""
    """Name of its comparison; empty of a run by itself."""

    @property
    def modality(self) -> str:
        """Name of the tokenizer's kind, or of the figures' where there is no configuration."""
        named = self.config.get("tokenizer", {}).get("name")
        return str(named or ("audio" if "si_sdr" in self.metrics else "image"))

    @property
    def fitted(self) -> bool:
        """Whether it was made in one pass: its configuration has an engine's threads, and no trainer."""
        return "threads" in self.config and "trainer" not in self.config

    @property
    def metrics(self) -> dict[str, float]:
        """Figures of the last evaluation; those that were measured."""
        return {name: float(value) for name, value in self.report.get("metrics", {}).items() if value is not None}

    @property
    def usage(self) -> list[Mapping[str, Any]]:
        """Of the last evaluation, a level each."""
        return list(self.report.get("usage", ()))


@dataclass(frozen=True)
class Comparison:
    """Arms over seeds, with places."""

    name: str
    folder: Path
    results: Mapping[str, Any]
    """As `results.json` holds them."""
    runs: tuple[Run, ...]
    prefix: str = ""
    """Before an arm's name in its series' name, where there are several comparisons."""
    asks: str = ""
    """The question, where it is part of a study."""

    @property
    def summary(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Figure -> arm -> mean, half, count, place."""
        found: Mapping[str, Mapping[str, Mapping[str, Any]]] = self.results["summary"]
        return found

    @property
    def arms(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(row["arm"] for row in self.results["rows"]))

    def values(self, figure: str) -> dict[str, list[float]]:
        """Arm -> the figure of each seed."""
        found: dict[str, list[float]] = {}
        for row in self.results["rows"]:
            if figure in row["figures"]:
                found.setdefault(row["arm"], []).append(row["figures"][figure])
        return found


def read_sources(paths: Sequence[Path]) -> tuple[tuple[Run, ...], tuple[Comparison, ...]]:
    """Runs by themselves, and comparisons, of what the paths name; a folder of such means all of them.

    Raises:
        ValueError: there is none, or one is damaged or empty.
    """
    found = list(dict.fromkeys(one for path in paths for one in _expand(path)))
    folders = [one for one in found if not (one / PLAN).is_file()]
    runs = tuple(read_run(one, name) for one, name in zip(folders, _names(folders), strict=True))
    homes = [one for one in found if (one / PLAN).is_file()]
    return runs, tuple(read_comparison(one, name) for one, name in zip(homes, _names(homes), strict=True))


def _expand(path: Path) -> list[Path]:
    def is_one(folder: Path) -> bool:
        return (folder / PLAN).is_file() or (folder / CONFIG).is_file()

    if not path.exists():
        raise ValueError(f"there is no {path}. Give run directories, or the folder of a comparison.")
    if path.is_dir() and is_one(path):
        return [path]
    inner = sorted(one for one in path.iterdir() if one.is_dir() and is_one(one)) if path.is_dir() else []
    if not inner:
        raise ValueError(f"{path} is no run (it has no {CONFIG}) and no comparison (no {PLAN}), and no folder of such.")
    return inner


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [folder.absolute().parts for folder in folders]
    for depth in range(1, 1 + max(map(len, parts), default=0)):
        names = ["/".join(one[-depth:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def read_run(folder: Path, name: str) -> Run:
    """A run directory.

    Raises:
        ValueError: it is damaged, or nothing has happened in it.
    """
    log = Log.read(folder / LOG)
    report = _last_evaluation(folder)
    if not log.columns and not report:
        raise ValueError(
            f"{folder} has nothing to report: neither a row in {LOG} nor an evaluation. Has it been trained?"
        )
    config = _config(folder)
    lengths = _last_lengths(folder)
    return Run(
        name, name, folder, config, log, report, lengths=lengths, tokenizer=str(folder), seed=config.get("seed")
    )  # fmt: skip


def _config(folder: Path) -> Mapping[str, Any]:
    import yaml

    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}.") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("tokenizer"), dict):
        raise ValueError(f"{path} is no configuration of a run: it has no block 'tokenizer'.")
    return plain


def _last_evaluation(folder: Path) -> Mapping[str, Any]:
    """The evaluation of the last step on the run's own set, which is called `step-N`; else any other of that step.

    Of what was fitted, which has no steps, that on the `val` set, or else the first by name.
    """
    last = _newest(path for path in (folder / "evaluation").glob("*.json") if not path.stem.startswith(LENGTHS))
    return _checked(last, ("metrics", "usage")) if last else {}


def _last_lengths(folder: Path) -> Mapping[str, Any]:
    """What `evaluate --task lengths` left, chosen alike."""
    last = _newest((folder / "evaluation").glob(f"{LENGTHS}*.json"))
    return _checked(last, ("axis", "quality", "by_length", "searched")) if last else {}


def _newest(paths: Iterable[Path]) -> Path | None:
    known = sorted(paths)
    files = [
        (int(m[1]), path.stem == f"step-{m[1]}", path) for path in known if (m := re.search(r"-(\d+)$", path.stem))
    ]
    fitted = sorted(known, key=lambda path: (path.stem != "val", path.name))
    return max(files)[2] if files else next(iter(fitted), None)


def _checked(path: Path, keys: Iterable[str]) -> Mapping[str, Any]:
    """JSON with these keys.

    Raises:
        ValueError: it is damaged, or lacks one.
    """
    plain = read_json(path)
    if lacks := [key for key in keys if key not in plain]:
        raise ValueError(f"{path} is damaged: it has no '{lacks[0]}'. Make it again.")
    return plain


def read_comparison(folder: Path, name: str) -> Comparison:
    """The folder of a comparison.

    Raises:
        ValueError: it is damaged, or nothing is measured yet.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(f"{folder} has no {RESULTS} yet. mmtok compare {folder} writes what stands.")
    results = _checked(path, ("rows", "summary", "missing"))
    if not results["rows"]:
        raise ValueError(f"{folder} has nothing to report: no cell of it is measured yet.")
    try:
        runs = tuple(_cell(folder, row) for row in results["rows"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: a row lacks {error}. mmtok compare {folder} writes it anew.") from error
    return Comparison(name, folder, results, runs)


def _cell(home: Path, row: Mapping[str, Any]) -> Run:
    folder = home / row["folder"]
    if home.resolve() not in folder.resolve().parents:
        raise ValueError(f"{home / RESULTS} names a cell outside of it: {row['folder']}.")
    stands = row.get("path") or ""
    trained = Path(stands) if stands and ":" not in stands and (Path(stands) / CONFIG).is_file() else folder
    measures = {path.stem: read_measured(path) for path in sorted((folder / "measures").glob("*.json"))}
    held = measures.get("reconstruction", {})
    return Run(
        f"{row['arm']} · seed {row['seed']}", row["arm"], folder, _config(trained), Log.read(trained / LOG),
        held.get("report", {}), held.get("counts", ()), measures.get("lengths", {}).get("result", {}),
        _examples(folder / "examples"),
        "" if ":" in stands else stands or str(folder), int(row["seed"]),
    )  # fmt: skip


def _examples(folder: Path) -> list[tuple[Path, Path]]:
    def number(path: Path) -> int:
        match = re.search(r"-(\d+)$", path.stem)
        return int(match[1]) if match else -1

    inputs = sorted((one for one in folder.glob("input-*") if one.suffix in (".png", ".wav")), key=number)
    pairs = [(one, one.with_name(one.name.replace("input-", "output-", 1))) for one in inputs]
    return [pair for pair in pairs if pair[1].is_file()]
