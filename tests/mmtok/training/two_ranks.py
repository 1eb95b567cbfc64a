"""Trains small runs on one or two gloo ranks, and saves what every rank ended with: `python two_ranks.py WORLD OUT`.

A script and not a test: Lightning starts the second rank by running it again, once for all runs, because starting is
what takes the time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from mmtok.config import parse_config
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train

VQ = {"name": "vq", "codebook_size": 32, "init": "kmeans", "restart": 0.3}
RQ = {"name": "rq", "codebook_size": 16, "depth": 3, "dropout": 0.5}
CASES: dict[str, tuple[dict[str, Any], int]] = {
    "vq": (VQ, 1),
    "vq-halves": (VQ | {"learn": "gradient", "code_dim": 4, "l2": True}, 2),
    "rq": (RQ, 1),
    "rq-halves": (RQ, 2),
    "lfq": ({"name": "lfq", "bits": 6, "entropy_weight": 0.1}, 1),
}
"""Quantizer and accumulation of each run."""


def tree(name: str, world: int, out: Path) -> dict[str, Any]:
    """A run of a second over the committed fixture. Of 9 validation samples the second rank's last batch has none."""
    quantizer, accumulate = CASES[name]
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "mid_blocks": 0}
    data = {"image_size": 16, "batch_size": 8, "val_batch_size": 4, "val_samples": 9, "workers": 0, "streams": 4}
    return {
        "tokenizer": {"name": "image", "image_size": 16, "dim": 8, "encoder": encoder},
        "quantizer": quantizer,
        "loss": {"pixel": {"name": "l2"}},
        "data": {"name": "images", "shards": str(out / "shards" / "train"), **data},
        # Without this eps Adam makes a full step of a gradient that is nothing but rounding.
        "optim": {"lr": 1e-3, "eps": 1e-3, "clip": 1.0, "ema": 0.9, "schedule": "cosine", "warmup_steps": 3},
        "trainer": {
            "max_steps": 10, "accelerator": "cpu", "devices": world, "threads": 1, "accumulate": accumulate,
            "val_every": 5,
        },
        "checkpoint": {"every_steps": 4, "every_minutes": 10.0, "keep": 0},
        "log": {"every_steps": 5, "usage_every_steps": 5, "tensorboard": False, "media_every_steps": 5},
        "run_dir": str(out / f"{name}-{world}"),
    }  # fmt: skip


def main() -> None:
    world, out = int(sys.argv[1]), Path(sys.argv[2])
    for name in CASES:

        def keep(module: TokenizerModule, name: str = name) -> None:
            torch.save(module.state_dict(), out / f"{name}-{module.global_rank}of{world}.pt")

        TokenizerModule.on_train_end = keep  # type: ignore[method-assign]
        train(parse_config(tree(name, world, out)), say=lambda line: None)


if __name__ == "__main__":
    main()
