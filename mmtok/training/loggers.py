"""Where scalars, pictures and histograms go: `metrics.csv` always, TensorBoard by default, W&B where asked for."""

from __future__ import annotations

import netrc
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmtok.schema import ConfigError
from mmtok.training.logs import LogConfig, MetricsFile, WandbConfig

STEP = "trainer/global_step"
"""The x-axis in W&B, named as Lightning names it."""


class Sink(Protocol):
    """One place that things are logged to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None: ...
    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None: ...
    def close(self) -> None: ...


class RunLog:
    """Fans out what a run logs. Only the process that `open`s it writes; elsewhere every call does nothing.

    Args:
        config: the `log` block.
        run_dir: the run directory.
        settings: the resolved configuration, shown beside the curves.

    Raises:
        ConfigError: W&B or TensorBoard is asked for and cannot be had; found before anything is trained.
    """

    def __init__(self, config: LogConfig, run_dir: Path, settings: Mapping[str, Any] | None = None) -> None:
        self.config = config
        self.run_dir = run_dir
        self.settings = dict(settings or {})
        self.latest: dict[str, float] = {}
        """The last value of every scalar."""
        self._sinks: list[Sink] = []
        if config.tensorboard:
            _need("tensorboard", "log.tensorboard=true", "log.tensorboard=false")
        if config.wandb is not None:
            check_wandb(config.wandb)

    def open(self, step: int) -> None:
        """Start writing after `step` updates: what an interrupted run had logged beyond them is cut off."""
        if self._sinks:
            return
        metrics = MetricsSink(self.run_dir / "metrics.csv")
        metrics.file.cut(step)
        self._sinks.append(metrics)
        if self.config.tensorboard:
            self._sinks.append(TensorBoardSink(self.run_dir / "tensorboard", step))
        if self.config.wandb is not None:
            self._sinks.append(WandbSink(self.config.wandb, self.run_dir, self.settings))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log values that hold for all ranks."""
        self.latest |= values
        for sink in self._sinks:
            sink.scalars(step, values)

    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """Log a picture (H, W, 3)."""
        for sink in self._sinks:
            sink.image(step, name, picture)

    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None:
        """Log the distribution of values (n,)."""
        for sink in self._sinks:
            sink.histogram(step, name, values)

    def close(self) -> None:
        """Write out and let go."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []


class MetricsSink:
    """`metrics.csv`: scalars only."""

    def __init__(self, path: Path) -> None:
        self.file = MetricsFile(path)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.file.write(step, values)

    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None: ...
    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None: ...
    def close(self) -> None: ...


class TensorBoardSink:
    """Event files; those of an interrupted run's overlap are hidden by `purge_step`."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=step + 1, flush_secs=30)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self.writer.add_image(name, picture, step, dataformats="HWC")

    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None:
        self.writer.add_histogram(name, values, step, bins=64)

    def close(self) -> None:
        self.writer.close()


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
    _need("wandb", "log.wandb", "leave logger/wandb out")
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


def _need(package: str, setting: str, remedy: str) -> None:
    """A clear refusal where an optional package is absent."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise ConfigError(f"{setting} needs the package '{package}'. Run: pip install {package}; or {remedy}.")
