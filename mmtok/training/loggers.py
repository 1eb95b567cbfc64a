"""Where scalars and media go: `metrics.csv` always, TensorBoard by default, W&B where asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmtok.training.logs import LogConfig, MetricsFile, need
from mmtok.training.wandb_sink import WandbSink, check_wandb


class Sink(Protocol):
    """One place that things are logged to."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...
    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None: ...
    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None: ...
    def sound(self, step: int, name: str, samples: NDArray[np.float32], rate: int) -> None: ...
    def text(self, step: int, name: str, text: str) -> None: ...
    def close(self) -> None: ...


class RunLog:
    """Fans out what a run logs. Only the process that `open`s it writes; elsewhere every call does nothing.

    Args:
        config: the `log` block.
        run_dir: the run directory.
        settings: the resolved configuration, shown beside the curves.
        say: where lines for the person go.

    Raises:
        ConfigError: W&B or TensorBoard is asked for and cannot be had; found before anything is trained.
    """

    def __init__(
        self,
        config: LogConfig,
        run_dir: Path,
        settings: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.config = config
        self.run_dir = run_dir
        self.settings = dict(settings or {})
        self.say = say
        self.latest: dict[str, float] = {}
        """The last value of every scalar."""
        self._sinks: list[Sink] = []
        if config.tensorboard:
            need("tensorboard", "log.tensorboard=true", "log.tensorboard=false")
        if config.wandb is not None:
            check_wandb(config.wandb)

    def open(self, step: int, dataset: Mapping[str, Any] | None = None) -> None:
        """Start writing after `step` updates: what an interrupted run had logged beyond them is cut off.

        Args:
            step: updates done.
            dataset: what is trained on, from `wandb_artifacts.describe`; None where it is no shard set.
        """
        if self._sinks:
            return
        metrics = MetricsSink(self.run_dir / "metrics.csv")
        metrics.file.cut(step)
        self._sinks.append(metrics)
        if self.config.tensorboard:
            self._sinks.append(TensorBoardSink(self.run_dir / "tensorboard", step))
        if self.config.wandb is not None:
            try:
                sink = WandbSink(self.config.wandb, self.run_dir, self.settings, dataset, self.say)
            except Exception as error:  # of many kinds
                self.say(f"WARNING: W&B cannot be started ({error}). The run goes on without it.")
                return
            # Rows that W&B had not written yet died with the process; the table has them. What W&B has, it skips.
            for row, values in metrics.file.rows():
                sink.scalars(row, values)
            self._sinks.append(sink)

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

    def sound(self, step: int, name: str, samples: NDArray[np.float32], rate: int) -> None:
        """Log a sound (S, C) in [-1, 1] of `rate` samples a second."""
        for sink in self._sinks:
            sink.sound(step, name, samples, rate)

    def text(self, step: int, name: str, text: str) -> None:
        """Log a text to read, its lines as they are."""
        for sink in self._sinks:
            sink.text(step, name, text)

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
    def sound(self, step: int, name: str, samples: NDArray[np.float32], rate: int) -> None: ...
    def text(self, step: int, name: str, text: str) -> None: ...
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

    def sound(self, step: int, name: str, samples: NDArray[np.float32], rate: int) -> None:
        mono = samples.mean(1, dtype=np.float32)  # it knows nothing else
        self.writer.add_audio(name, mono[None], step, sample_rate=rate)

    def text(self, step: int, name: str, text: str) -> None:
        self.writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()), step)  # Markdown: as it is

    def close(self) -> None:
        self.writer.close()
