"""What the sections of `python -m benchmarks.gpu` are told, and what they share."""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmtok.config import RunConfig
from mmtok.training.module import TokenizerModule
from mmtok.training.run import build_module


@dataclass(frozen=True)
class Setting:
    """What a section is told."""

    out: Path
    """Folder of the results."""
    dry: bool
    """CPU sizes."""
    pictures: str | None
    """What to train on; None is the committed fixture."""
    sounds: tuple[str, ...]
    """What to train on; none means data/speech where it is, else the committed fixture."""
    minutes: float
    """What is left."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.dry else "cuda")


@dataclass(frozen=True)
class Section:
    measure: Callable[[Setting], dict[str, Any]]
    minutes: float
    """It takes about so long on one H100."""


def run(config: RunConfig) -> tuple[list[dict[str, str]], TokenizerModule]:
    """Train, and read the log back: (rows, the module as it ended)."""
    from mmtok.training import run as training

    built: list[TokenizerModule] = []

    def keep(config: RunConfig) -> TokenizerModule:
        built.append(build_module(config))
        return built[-1]

    training.build_module = keep
    try:
        training.train(config, say=lambda line: print(line, flush=True))
    finally:
        training.build_module = build_module
    with (Path(config.run_dir) / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), built[-1]


def ceilings_of(setting: Setting) -> dict[str, Any]:
    """What `ceilings` wrote, or nothing."""
    path = setting.out / "ceilings.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call: the median of ten, after two that warm up."""
    seconds = []
    for turn in range(12):
        wait(device)
        begun = time.perf_counter()
        work()
        wait(device)
        if turn > 1:
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_of(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
