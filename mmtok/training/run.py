"""One training run, from a checked configuration to its last checkpoint."""

from __future__ import annotations

import errno
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from datamodules.base import datamodules
from datamodules.order import BatchPlan
from mmtok.config import RunConfig, dump_yaml
from mmtok.schema import ConfigError
from mmtok.training.callbacks import build_callbacks
from mmtok.training.callbacks.preemption import Preemption
from mmtok.training.checkpoint import Checkpoints, NotSaved
from mmtok.training.fit import weights_ignored
from mmtok.training.init_from import initialise
from mmtok.training.lease import Lease, holding
from mmtok.training.module import TokenizerModule
from mmtok.training.resume import put_last, resume_point, world_line

Say = Callable[[str], None]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What a run may meet wherever it writes, at any moment."""


def train(config: RunConfig, say: Say = print) -> Path:
    """Train, or continue where the run directory's last checkpoint stands.

    Args:
        config: the checked configuration.
        say: where messages to the person go.

    Returns:
        The run directory.

    Raises:
        ConfigError: the directory holds another experiment, another process trains in it, or the configuration does
            not fit this machine.
        Preempted: SIGUSR1 or SIGTERM asked the run to stop; its state is saved.
    """
    quiet()
    first = not rank_zero_only.rank  # type: ignore[attr-defined]  # set at import
    run_dir = Path(config.run_dir)
    if run_dir.exists() and not run_dir.is_dir():
        raise ConfigError(f"run_dir={run_dir} is a file. Give a folder.")
    with holding(run_dir, first) as lease:
        # Every rank reads the same configuration and would say the same.
        _train(config, run_dir, lease, say if first else _nothing)
    return run_dir


def _train(config: RunConfig, run_dir: Path, lease: Lease | None, say: Say) -> None:
    """What `train` does while it holds the run directory."""
    resume = resume_point(config, run_dir, say)
    for line in without_effect(config):
        say(line)
    module = build_module(config)
    for line in weights_ignored(config.data) if module.tokenizer.wants_sample else ():
        say(line)
    if facts := module.tokenizer.describe():
        say(" | ".join(f"{name} {value}" for name, value in facts.items()))
    if config.init_from and resume is None:
        for line in initialise(module, config.init_from):
            say(line)
    data = datamodules.build(config.data)
    data.plan(seed=config.seed, accumulate=config.trainer.accumulate)
    try:
        trainer = build_trainer(config, run_dir, say, lease)
    except MisconfigurationException as error:
        raise ConfigError(
            f"trainer.accelerator={config.trainer.accelerator}, trainer.devices={config.trainer.devices}: "
            f"{str(error).strip()} 'mmtok doctor' says what this machine has; hardware/cpu trains without a GPU."
        ) from error
    without_signal_handling(trainer)
    check_division(config, trainer.world_size)
    if resume and (change := world_line(resume.world, trainer.world_size, config.data.streams)):
        say(change)
    if trainer.is_global_zero:
        # By a rename: other ranks of a job that comes back may be reading it.
        draft = run_dir / "config.yaml.tmp"
        draft.write_text(dump_yaml(config), encoding="utf-8")
        os.replace(draft, run_dir / "config.yaml")
        if resume:
            put_last(resume.path)
    if config.trainer.compile:
        module.compile_networks()
    try:
        path = resume.path if resume else None
        trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True if resume else None)
    except SystemExit:
        if trainer.interrupted:  # Lightning answers Ctrl-C with exit status 1, in silence
            raise KeyboardInterrupt from None
        raise
    except NotSaved:
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        said = f"{error.strerror}; what was saved before stands. Make room and give the same command again"
        raise OSError(error.errno, said, str(error.filename or run_dir)) from error


def without_effect(config: RunConfig) -> list[str]:
    """A line for each setting that this run will not feel."""
    lines = config.adversary.without_effect(config.trainer.max_steps) if config.adversary else []
    if config.optim.freeze and not config.init_from:
        lines.append(
            f"optim.freeze={list(config.optim.freeze)} without init_from keeps random weights as they are drawn."
        )
    return lines


def _nothing(line: str) -> None:
    """Where the lines of the other ranks go."""


def build_module(config: RunConfig) -> TokenizerModule:
    """The module with its weights drawn from the run's seed, whatever was drawn before."""
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    torch.use_deterministic_algorithms(config.deterministic)
    L.seed_everything(config.seed, workers=False, verbose=False)
    return TokenizerModule(config)


def build_trainer(config: RunConfig, run_dir: Path, say: Say, lease: Lease | None = None) -> L.Trainer:
    """A Lightning trainer with one endless epoch, our callbacks, and none of its own files."""
    settings = config.trainer
    checkpoints = Checkpoints(config.checkpoint, run_dir / "checkpoints", lease)
    # After the checkpoints, which it asks for one more.
    preemption = Preemption(checkpoints, run_dir, settings.agree_every)
    callbacks = [*build_callbacks(config, run_dir, say), checkpoints, preemption]
    return L.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        num_nodes=settings.num_nodes,
        strategy=build_strategy(config),
        plugins=[*build_plugins(), checkpoints.io],
        precision=settings.precision,
        max_steps=settings.max_steps,
        max_epochs=-1,
        val_check_interval=1,  # an int, as an endless epoch needs; ValidationSchedule decides
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run_dir / "checkpoints",  # where no hpc_ckpt_*.ckpt is looked for: platform.md 2.15
    )


def build_strategy(config: RunConfig) -> Any:
    """One process plainly; several by DDP.

    Unused parameters are looked for because a discriminator has no gradients before it learns, nor a level that is
    dropped everywhere. Buffers are not broadcast: quantizers keep theirs equal themselves, and a broadcast would
    undo it.
    """
    from lightning.pytorch.strategies import DDPStrategy

    settings = config.trainer
    alone = settings.num_nodes == 1 and settings.devices == 1
    if alone or (settings.devices == "auto" and torch.cuda.device_count() <= 1):
        return "auto"
    backend = "nccl" if settings.accelerator != "cpu" and torch.cuda.is_available() else "gloo"
    return DDPStrategy(find_unused_parameters=True, broadcast_buffers=False, process_group_backend=backend)


def build_plugins() -> list[Any]:
    """Under SLURM, Lightning without its requeueing: its handler saves in the middle of a step, under a name that the
    next run in the folder would take for its own (platform traps 14, 15).
    """
    from lightning.pytorch.plugins.environments import SLURMEnvironment

    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def without_signal_handling(trainer: L.Trainer) -> None:
    """Take out what Lightning does about signals, for which there is no setting: `callbacks/preemption.py` does it.

    Before every batch of several ranks it broadcasts whether the first rank got a SIGTERM, and waits for the answer,
    which stops host and device each step (platform.md 2.12). Its handler of SIGTERM broadcasts too, in the middle of
    whatever the other ranks exchange (platform.md 2.14).
    """
    loop, signals = trainer.fit_loop.epoch_loop, trainer._signal_connector
    assert hasattr(loop, "_broadcast_sigterm_tensor"), "Lightning has changed: look for its broadcast elsewhere"
    assert hasattr(signals, "register_signal_handlers"), "Lightning has changed: look for its handlers elsewhere"
    loop._broadcast_sigterm_tensor = _nothing_to_tell  # type: ignore[method-assign]
    signals.register_signal_handlers = _nothing_to_tell  # type: ignore[method-assign]


def _nothing_to_tell() -> None:
    """Instead of broadcasts and handlers."""


def check_division(config: RunConfig, world: int) -> None:
    """`data.batch_size` must be the same number of samples on every rank and in every accumulated batch.

    Raises:
        ValueError: it does not divide; names the nearest sizes that do.
    """
    data = config.data
    BatchPlan.check(data.batch_size, world, accumulate=config.trainer.accumulate, each=data.items_per_sample)


def quiet() -> None:
    """Silence what Lightning says about matters this platform decides itself."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
