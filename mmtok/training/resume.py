"""Where a run continues: the newest whole checkpoint of its directory, after making sure that it is of this run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mmtok.config import RunConfig, differences, load_config, parse_config
from mmtok.loading import LAST, newest_whole
from mmtok.schema import ConfigError

Say = Callable[[str], None]


class ResumePoint(NamedTuple):
    """A checkpoint to continue from."""

    path: Path
    step: int
    """Updates done."""
    world: int
    """Ranks that did them."""


def resume_point(config: RunConfig, run_dir: Path, say: Say) -> ResumePoint | None:
    """The checkpoint to continue from; None in a directory that holds none.

    Raises:
        ConfigError: the directory holds another experiment, another program's checkpoints, or some of which none is
            whole.
    """
    saved = run_dir / "config.yaml"
    try:
        found = newest_whole(run_dir / "checkpoints")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if found is None:
        for foreign in run_dir.glob("hpc_ckpt_*.ckpt"):  # platform.md 2.15
            raise ConfigError(
                f"{foreign} is of another program, and Lightning would begin with it under SLURM. Give run_dir=ANOTHER."
            )
        return None
    # A config.yaml that got lost is no reason to write over what was trained: the checkpoint holds it too.
    before = load_config([str(saved)]).config if saved.is_file() else parse_config(found.content["mmtok"]["config"])
    changed = differences(before, config)
    if changed:
        lines = "\n  ".join(changed)
        raise ConfigError(
            f"{run_dir} holds another experiment, which differs in\n  {lines}\n"
            "Give run_dir=ANOTHER for a new run, or undo the change to continue this one."
        )
    step = found.content["global_step"]
    if found.damaged:
        again = f"falling back to {found.path.name}: what was trained after step {step:,} is trained again."
        say(f"WARNING: {' '.join(found.damaged)} {again[0].upper()}{again[1:]}")
    if step >= config.trainer.max_steps:
        say(f"{run_dir} is complete at step {step:,}. Raise trainer.max_steps to go on.")
    else:
        say(f"continuing {run_dir} from step {step:,}")
    return ResumePoint(found.path, step, found.content["mmtok"].get("world", 1))


def put_last(path: Path) -> None:
    """Make the checkpoint that a run falls back to its `last.ckpt`, which everyone else reads."""
    last = path.with_name(LAST)
    if path != last:
        draft = path.with_name(f"{LAST}.partial")
        draft.unlink(missing_ok=True)
        os.link(path, draft)
        os.replace(draft, last)


def world_line(before: int, world: int, streams: int) -> str | None:
    """What it means that a run continues on another number of ranks; None where it does not."""
    if before == world:
        return None
    who = "1 rank continues" if world == 1 else f"{world} ranks continue"
    line = (
        f"{who} what {before} began: the same global batches, from a whole one on; none is lost or "
        "repeated. Sums over ranks are rounded differently"
    )
    if streams % world:
        line += f", and every rank reads from all data.streams={streams}, which {world} does not divide"
    return f"{line}."
