"""Weights & Biases: one run for a run directory, however often and wherever it is started."""

from __future__ import annotations

import netrc
import os
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtok.schema import ConfigError
from mmtok.training.logs import WandbConfig, need
from mmtok.training.wandb_artifacts import Lineage
from mmtok.training.wandb_pieces import AXES, STEP, logged, read_piece, read_pieces


class WandbSink:
    """A W&B run whose id lives in the run directory, so that a restart, under whatever job, continues it.

    Nothing is logged with W&B's own `step`: it refuses to go back, and a run resumed from an older checkpoint must.
    Instead, what W&B has already is left out, name by name. What it has is read from the files it wrote, and asked of
    the server: a killed process takes with it rows that were handed over.

    Where the server cannot be reached, the run is written offline under the same id.

    Args:
        config: the `log.wandb` block.
        run_dir: the run directory.
        settings: the resolved configuration.
        dataset: of the training set, from `wandb_artifacts.describe`; None where it is no shard set.
        say: where lines for the person go.
    """

    def __init__(
        self,
        config: WandbConfig,
        run_dir: Path,
        settings: Mapping[str, Any],
        dataset: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        # W&B reports its own errors home, and would hold up the end of the process for half a minute where that hangs.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb = wandb
        self.config = config
        self.run_dir = run_dir
        self.say = say
        run_dir.mkdir(parents=True, exist_ok=True)
        before = read_pieces(run_dir)
        self.run = self._start(settings)
        if self.run.offline:
            say(offline_note(run_dir))
        self._logged = logged(before, None if self.run.offline else self.run.starting_step)
        self._restart = 1 + max((row.restart for piece in before for row in piece.rows), default=-1)
        self._batch = settings.get("data", {}).get("batch_size", 0)
        self._epoch = dataset["samples"] if dataset and len(dataset["sets"]) == 1 else 0
        self._failed = False
        self._define()
        self._file = Path(self.run.dir).parent / f"run-{self.run.id}.wandb"
        there = [piece for piece in before if not piece.online or piece.marker.exists()]
        self._lineage = Lineage(self.run, config, run_dir, [name for piece in there for name in piece.artifacts])
        self._try(lambda: self._lineage.sources(settings, dataset))

    def _start(self, settings: Mapping[str, Any]) -> Any:
        """A run, offline where the server does not let us have one in time."""
        mode = wandb_mode(self.config)
        if mode == "online":
            try:
                return self._init("online", settings)
            except Exception as error:  # of many kinds: no network, no permission, a server that errs or hangs
                reason = " ".join(str(error).split()) or type(error).__name__
                self.say(f"WARNING: W&B cannot be reached ({reason[:200]}). The run goes on without it.")
                self._wandb.teardown(exit_code=1)  # its process holds on to the id
            mode = "offline"
        return self._init(mode, settings)

    def _init(self, mode: str, settings: Mapping[str, Any]) -> Any:
        return self._wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            name=self.config.name or "/".join(self.run_dir.absolute().parts[-2:]),
            tags=list(self.config.tags) or None,
            id=stored_id(self.run_dir),
            resume="allow",  # offline too: W&B notes it in the file, and its sync appends then instead of writing over
            mode=mode,  # type: ignore[arg-type]
            dir=str(self.run_dir),
            config=dict(settings),
            settings=self._wandb.Settings(
                init_timeout=self.config.timeout,
                finish_timeout=self.config.timeout,
                finish_timeout_raises=True,
                quiet=mode == "offline",  # else it advises a command that would upload the pieces in any order
            ),
        )

    def _define(self) -> None:
        """Updates are the x-axis of everything; a chart may choose another of ours."""
        for axis in (STEP, *AXES):
            self.run.define_metric(axis)
        self.run.define_metric("*", step_metric=STEP)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._try(lambda: self._write(step, values))
        self._try(self._lineage.look)

    def image(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        self._try(lambda: self._write(step, {name: self._wandb.Image(picture)}))

    def histogram(self, step: int, name: str, values: NDArray[np.floating]) -> None:
        self._try(lambda: self._write(step, {name: self._wandb.Histogram(values.tolist(), num_bins=64)}))

    def sound(self, step: int, name: str, samples: NDArray[np.float32], rate: int) -> None:
        self._try(lambda: self._write(step, {name: self._wandb.Audio(samples, sample_rate=rate)}))

    def text(self, step: int, name: str, text: str) -> None:
        self._try(lambda: self._write(step, {name: self._wandb.Html(f"<pre>{escape(text)}</pre>")}))

    def _write(self, step: int, values: Mapping[str, Any]) -> None:
        """One row of what is not there yet."""
        new = {name: value for name, value in values.items() if name not in AXES and step > self._logged.get(name, -1)}
        if not new:
            return
        samples = step * self._batch
        axes = {STEP: step, "restart": self._restart, "samples": samples}
        if self._epoch:
            axes["epoch"] = samples / self._epoch
        self.run.log({**new, **axes})

    def _try(self, act: Callable[[], object]) -> None:
        """What happens to W&B must not happen to the run: its process may be gone, or the disk full."""
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # of many kinds
            self._failed = True
            self.say(f"WARNING: W&B failed and gets nothing more until the next start ({error}). The run goes on.")

    def close(self) -> None:
        """Let W&B finish, for `log.wandb.timeout` seconds at most."""
        self._try(self._lineage.look)
        online = not self.run.offline and not self._failed
        try:
            self.run.finish()
        except Exception as error:
            self.say(f"WARNING: W&B has not got everything ({error}). {sync_note(self.run_dir)}")
            online = False
        # Its process ends, and the file is whole: `finish` waits for neither. A signal to all of a job may have ended
        # it before (TERM does, USR1 does not).
        with suppress(Exception):
            self._wandb.teardown()
        if online and (piece := read_piece(self._file)):
            piece.uploaded()


def stored_id(run_dir: Path) -> str:
    """The run's id, made once. Not from a job or a time: those change when a job is requeued."""
    path = run_dir / "wandb_id"
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():  # empty: the machine lost its power
        draft = path.with_suffix(".tmp")
        draft.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
        os.replace(draft, path)
    return path.read_text(encoding="utf-8").strip()


def wandb_mode(config: WandbConfig) -> str:
    """The configured mode, or what W&B's own variable says."""
    return os.environ.get("WANDB_MODE") or config.mode


def offline_note(run_dir: Path) -> str:
    """What to do with a run that W&B wrote to disk."""
    return f"W&B writes offline. {sync_note(run_dir)}"


def sync_note(run_dir: Path) -> str:
    """How what lies on the disk gets to the server."""
    return f"To upload, from a machine with a way out: mmtok wandb-sync {run_dir}"


def check_wandb(
    config: WandbConfig,
    asked: str = "log.wandb",
    remedy: str = "add logger/wandb_offline, which writes into the run directory to be uploaded later",
) -> None:
    """Refuse early what would fail after the data is loaded.

    Args:
        config: the `log.wandb` block.
        asked: what asked for W&B.
        remedy: how to go on without a login.

    Raises:
        ConfigError: wandb is not installed, or nobody is logged in.
    """
    need("wandb", asked, "leave it out")
    if wandb_mode(config) == "online" and not wandb_logged_in():
        raise ConfigError(
            f"{asked}: nobody is logged in to W&B on this machine. Run 'wandb login' or set WANDB_API_KEY; or {remedy}."
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
