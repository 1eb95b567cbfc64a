"""Where a tokenizer comes from: what its checkpoint, its run's evaluations and the sources that export it can tell."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from mmtok.export.folder import CONFIG, is_model, marker_of
from mmtok.loading import home_of, load, open_checkpoint, tokenizer_of
from mmtok.schema import read_json
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.predictor import attach

EVALUATION = "evaluation.json"
"""In a bundle; a run has a folder of them."""

_PATH = re.compile(r"(?<![\w.:/}])(?:~|[A-Za-z]:)?/(?:[^\s'\",;/]+/)*([^\s'\",;/]+)")
"""An absolute path within a text; not the rest of an address or of a relative one."""


@dataclass(frozen=True)
class Provenance:
    """Where a tokenizer comes from, as far as that is known."""

    source: str = ""
    """What was exported."""
    step: int | None = None
    """Updates it was trained for; None of one that was fitted."""
    weights: str = ""
    """Which of them: their moving average, as trained, or fitted."""
    mmtok: str = ""
    """Version that trained it."""
    commit: str = ""
    """Of the sources that export it, where they are a checkout."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The whole configuration of the run."""
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name -> what an evaluation of these weights found."""
    plugins: tuple[str, ...] = ()
    """Modules that register names of its configuration."""
    sample: Mapping[str, Any] = field(default_factory=dict)
    """Of a tokenizer that was fitted: on what, with its hash."""


class Origin(NamedTuple):
    """A tokenizer and what is known of it."""

    tokenizer: Tokenizer
    provenance: Provenance


def read_origin(path: str | Path, *, raw: bool = False, digits: int | None = None) -> Origin:
    """A run, a checkpoint, an import or a bundle, as `mmtok.load` takes them, with what it tells of itself.

    Args:
        path: of it.
        raw: take the weights as trained instead of their average.
        digits: keep the leading digits of codes alone; what was measured of whole codes is no measure of these.

    Raises:
        ValueError: it cannot be loaded, or has not as many digits.
    """
    origin = _read_origin(path, raw)
    if digits is None:
        return origin
    return Origin(origin.tokenizer.prefix(digits), replace(origin.provenance, evaluations={}))


def _read_origin(path: str | Path, raw: bool) -> Origin:
    name = Path(path).resolve().name
    if is_model(path):
        return Origin(load(path), _of_folder(Path(path), name))
    found = open_checkpoint(path)
    about = found.content["mmtok"]
    settings = about["config"]
    fitted = "optim" not in settings
    step = None if fitted else int(found.content["global_step"])
    averaged = not fitted and bool(settings["optim"]["ema"]) and not raw
    made = Provenance(
        source=name,
        step=step,
        weights="fitted" if fitted else "moving average" if averaged else "as trained",
        mmtok=str(about.get("version", "")),
        commit=_commit(),
        config=settings,
        evaluations=_evaluations(found.path.parent.parent / "evaluation", step, raw),
        plugins=tuple(settings["plugins"]),
        sample=about.get("sample", {}),
    )
    return Origin(attach(tokenizer_of(found.content, raw=raw), home_of(found.path)), made)


def published(made: Provenance) -> Provenance:
    """The same without places on the machine that made it: of absolute paths only the names stay."""
    return replace(
        made,
        source=without_places(made.source),
        config=without_places(made.config),
        sample=without_places(made.sample),
        evaluations=without_places(made.evaluations),
    )


def without_places(value: Any) -> Any:
    """Texts in plain containers, with the last part of each absolute path in place of the whole."""
    if isinstance(value, str):
        if value.startswith(("/", "~/", "file:/")):
            return value.rstrip("/").rpartition("/")[2]
        return _PATH.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {without_places(key): without_places(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_places(inner) for inner in value]
    return value


def _of_folder(folder: Path, name: str) -> Provenance:
    config = read_json(folder / (marker_of(folder) or CONFIG))
    file = folder / EVALUATION
    evaluations = read_json(file) if file.is_file() else {}
    source = str(config.get("source") or name)
    return Provenance(source, commit=_commit(), evaluations=evaluations, plugins=tuple(config.get("plugins", ())))


def _evaluations(folder: Path, step: int | None, raw: bool) -> dict[str, Any]:
    """Those of these weights, by name, the run's own validation set first; all of what was fitted once."""
    found = folder.glob("*.json" if step is None else f"*step-{step}.json")
    files = [file for file in found if step is None or ("-raw-" in file.name) == raw]
    files.sort(key=lambda file: (not file.name.startswith(("step-", "val-", "val.")), file.name))
    return {file.stem: read_json(file) for file in files}


def _commit() -> str:
    """Of the checkout this package lies in; "" where it is installed, or there is no git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
