"""Weights & Biases: one run for a run directory, however often and wherever it is started."""

from __future__ import annotations

import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtok.schema import ConfigError
from mmtok.training.logs import WandbConfig, need

STEP = "trainer/global_step"
"""The x-axis in W&B, named as Lightning names it."""


class WandbSink:
    """A W&B run whose id lives in the run directory, so that a restart, under whatever job, continues it.

    Nothing is logged with W&B's own `step`: it refuses to go back, and a run resumed from an older checkpoint must.
    The overlap stands twice under different `restart`.
    """

    def __init__(self, config: WandbConfig, run_dir: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        self._wandb = wandb
        mode = wandb_mode(config)
        run_dir.mkdir(parents=True, exist_ok=True)
        before = len(list((run_dir / "wandb").glob("*run-*")))
        try:
            self.run = wandb.init(
                project=config.project,
                entity=config.entity,
                name=config.name or "/".join(run_dir.absolute().parts[-2:]),
                tags=list(config.tags) or None,
                id=stored_id(run_dir),
                resume="allow" if mode == "online" else None,
                mode=mode,  # type: ignore[arg-type]
                dir=str(run_dir),
                config=dict(settings),
            )
        except (wandb.errors.UsageError, wandb.errors.CommError) as error:
            raise ConfigError(
                f"log.wandb: W&B could not be reached or refused the login ({error}). Run 'wandb login', or add "
                "logger/wandb_offline."
            ) from error
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)
        self._axes = {"restart": before}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, **self._axes, STEP: step})

    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self.run.log({name: self._wandb.Image(picture), STEP: step})

    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None:
        self.run.log({name: self._wandb.Histogram(values.tolist(), num_bins=64), STEP: step})

    def close(self) -> None:
        self.run.finish()


def stored_id(run_dir: Path) -> str:
    """The run's id, made once. Not from a job or a time: those change when a job is requeued."""
    path = run_dir / "wandb_id"
    if not path.is_file():
        draft = path.with_suffix(".tmp")
        draft.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        os.replace(draft, path)
    return path.read_text(encoding="utf-8").strip()


def wandb_mode(config: WandbConfig) -> str:
    """The configured mode, or what W&B's own variable says."""
    return os.environ.get("WANDB_MODE") or config.mode


def offline_note(run_dir: Path) -> str:
    """What to do with a run that W&B wrote to disk: every restart left a part, and the server wants them in order."""
    return (
        f"W&B writes offline. To upload, from a machine with a way out: 'wandb sync' each of "
        f"{run_dir}/wandb/offline-run-* , the oldest first."
    )


def check_wandb(config: WandbConfig) -> None:
    """Refuse early what would fail after the data is loaded.

    Raises:
        ConfigError: wandb is not installed, or nobody is logged in.
    """
    need("wandb", "log.wandb", "leave logger/wandb out")
    if wandb_mode(config) == "online" and not wandb_logged_in():
        raise ConfigError(
            "log.wandb: nobody is logged in to W&B on this machine. Run 'wandb login' or set WANDB_API_KEY; or add "
            "logger/wandb_offline, which writes into the run directory to be uploaded later."
        )


def wandb_logged_in() -> bool:
    """Whether W&B would find a key without asking: in its variables or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    paths = [os.environ.get("NETRC"), "~/.netrc", "~/_netrc"]
    for path in (Path(name).expanduser() for name in paths if name):
        try:
            if host in netrc.netrc(path).hosts:
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False
