"""The page's figures in TensorBoard and W&B, for those who live there."""

from __future__ import annotations

from pathlib import Path

from mmtok.training.logs import WandbConfig, need
from mmtok.training.wandb_sink import check_wandb


def check_dashboards(tensorboard: Path | None, wandb: str | None) -> None:
    """Refuse before the page is made what would fail after it.

    Args:
        tensorboard: folder for event files, which must be empty or new: those of two reports would be mixed.
        wandb: project.

    Raises:
        ValueError: the folder holds something, a package is not installed, or nobody is logged in to W&B.
    """
    if tensorboard is not None:
        need("tensorboard", "--tensorboard", "leave it out")
        if tensorboard.is_file() or (tensorboard.is_dir() and any(tensorboard.iterdir())):
            raise ValueError(f"--tensorboard: {tensorboard} is not empty. Give a new folder, or delete it.")
    if wandb is not None:
        remedy = "set WANDB_MODE=offline, which writes to disk what is uploaded later"
        check_wandb(WandbConfig(project=wandb), "--wandb", remedy)
