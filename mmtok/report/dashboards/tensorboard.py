"""The page's figures in TensorBoard: a run each seed, and one called `report` for what is said of all."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mmtok.report.dashboards.exhibits import (
    figures_of,
    figures_table,
    gallery,
    members,
    ranked_shares,
    sounds,
    strips,
    verdict_text,
)
from mmtok.report.looking import Look
from mmtok.report.numbers import LEVELS
from mmtok.report.sources import Comparison, Run
from mmtok.report.story import Story

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def to_tensorboard(story: Story, folder: Path) -> None:
    """Write event files, a sub-folder each run.

    The HPARAMS tab has the figures of every seed: its scatter plots are the page's charts against bits and tokens.

    Args:
        story: what the page tells.
        folder: empty or new.
    """
    _report(story, folder / "report")
    looks = {id(look.run): look for look in story.looks}
    for run, comparison in members(story):
        _run(run, comparison, looks.get(id(run)), folder / re.sub(r"[^\w.,=+-]+", "_", run.name).strip("_"))


def _report(story: Story, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_text("verdict", verdict_text(story))
        for one in story.comparisons:
            writer.add_text(f"figures/{one.name}", figures_table(one))


def _run(run: Run, comparison: Comparison | None, look: Look | None, folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    figures = figures_of(run, comparison)
    with SummaryWriter(str(folder)) as writer:
        for name, points in run.log.columns.items():
            for step, value in points:
                writer.add_scalar(name, value, step)
        for name, value in figures.items():
            writer.add_scalar(f"figure/{name}", value, run.log.last_step)
            if name.startswith(LEVELS):
                writer.add_scalar("levels/snr", value, int(name.removeprefix(LEVELS)))
        arm = {"comparison": comparison.name if comparison else "", "arm": run.series, "seed": run.seed or 0}
        for summary in hparams(arm, {f"figure/{name}": value for name, value in figures.items()}):
            writer._get_file_writer().add_summary(summary)  # add_hparams would make a further run of them
        if look is not None:
            _look(writer, look)


def _look(writer: SummaryWriter, look: Look) -> None:
    for level, counts in enumerate(look.counts):
        for rank, share in ranked_shares(counts):
            writer.add_scalar(f"usage/share_by_rank/level-{level + 1}", share, rank)
    for item, strip in enumerate(strips(look)):
        writer.add_image("pictures/input_output_codes", strip, item, dataformats="HWC")
    for item, pair in enumerate(sounds(look)):
        for one in pair:
            writer.add_audio(f"sounds/{one.name}", one.samples.mean(1)[None], item, sample_rate=one.rate)
            writer.add_image(f"spectrograms/{one.name}", one.spectrum, item, dataformats="HWC")
    if (patches := gallery(look)) is not None:
        writer.add_image("patches_by_code", patches, 0, dataformats="HWC")
