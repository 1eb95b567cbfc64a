"""What a run shows and says, a callback each, in the order they must come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lightning import Callback

from mmtok.schema import to_plain
from mmtok.training.callbacks.bad_samples import BadSamples
from mmtok.training.callbacks.media import Media
from mmtok.training.callbacks.progress import Progress
from mmtok.training.callbacks.scalars import Scalars
from mmtok.training.callbacks.schedule import ValidationSchedule
from mmtok.training.callbacks.signatures import Signatures
from mmtok.training.callbacks.usage import CodebookUsage
from mmtok.training.callbacks.validation import Validation
from mmtok.training.loggers import RunLog

if TYPE_CHECKING:
    from mmtok.config import RunConfig


def build_callbacks(config: RunConfig, run_dir: Path, say: Callable[[str], None] = print) -> list[Callback]:
    """The callbacks of a run.

    Args:
        config: the checked configuration.
        run_dir: the run directory.
        say: where lines for the person go; called on the first rank only.

    Raises:
        ConfigError: a logger that is asked for cannot be had.
    """
    log = RunLog(config.log, run_dir, to_plain(config), say)
    # The schedule is asked by those that follow; usage is read before the scalars, and the scalars before the line that
    # shows both.
    callbacks: list[Callback] = [ValidationSchedule(config.trainer.val_every), BadSamples(say)]
    callbacks += [CodebookUsage(config.log, log, say), Scalars(config.log, log)]
    if config.log.progress:
        callbacks.append(Progress(config.log, log, say))
    return [*callbacks, Validation(log, say), Signatures(config.log, log, say), Media(config.log, log, run_dir)]
