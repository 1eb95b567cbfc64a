"""A run small enough to train in a second: 8 x 8 pictures made of their slot number, no files."""

from __future__ import annotations

from dataclasses import dataclass

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from datamodules.base import DataConfig, register_data
from mmtok.config import RunConfig, parse_config
from mmtok.training.draws import generator


@dataclass(frozen=True, kw_only=True)
class SlotsConfig(DataConfig):
    shards: str = "none"
    poison: int = -1
    """Slot whose picture is NaN."""


def picture(slot: int) -> torch.Tensor:
    return torch.rand(3, 8, 8, generator=generator(7, slot)) * 2 - 1


class Slots(IterableDataset):
    def __init__(self, config, start, world, rank, accumulate):
        self.config, self.start, self.world, self.rank = config, start, world, rank
        self.accumulate = accumulate

    def __iter__(self):
        size = self.config.batch_size // self.world // self.accumulate
        micro = self.start * self.accumulate
        while True:
            slots = [self.rank + self.world * (micro * size + i) for i in range(size)]
            x = torch.stack([picture(slot) for slot in slots])
            for i, slot in enumerate(slots):
                if slot == self.config.poison:
                    x[i] = float("nan")
            yield {"x": x, "label": torch.tensor(slots) % 4, "key": [f"slot{slot}" for slot in slots]}
            micro += 1


if "test_slots" not in __import__("datamodules.base", fromlist=["datamodules"]).datamodules.names():

    @register_data("test_slots", SlotsConfig)
    class SlotsModule(L.LightningDataModule):
        def __init__(self, config):
            super().__init__()
            self.config = config

        def plan(self, *, seed, accumulate):
            self.accumulate = accumulate

        def train_dataloader(self):
            trainer = self.trainer
            rank, world, start = trainer.global_rank, trainer.world_size, trainer.global_step
            return DataLoader(Slots(self.config, start, world, rank, self.accumulate), batch_size=None)

        def val_dataloader(self):
            x = torch.stack([picture(10_000 + i) for i in range(8)])
            batch = {"x": x, "label": torch.arange(8) % 4, "key": [f"val{i}" for i in range(8)], "valid": [True] * 8}
            return DataLoader([batch], batch_size=None)


TINY = {
    "tokenizer": {
        "name": "image",
        "image_size": 8,
        "dim": 8,
        "encoder": {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "mid_blocks": 0},
    },
    "quantizer": {"name": "vq", "codebook_size": 16},
    "loss": {"pixel": {"name": "l2"}},
    "data": {"name": "test_slots", "batch_size": 8, "workers": 0},
    "optim": {"lr": 1e-3, "clip": 1.0, "ema": 0.9},
    "trainer": {"max_steps": 6, "accelerator": "cpu", "val_every": 3, "threads": 1},
    "checkpoint": {"every_steps": 2, "every_minutes": 0.0, "keep": 2},
    "log": {"every_steps": 1, "tensorboard": False, "media_every_steps": 0, "progress": False},
}


@pytest.fixture
def tiny(tmp_path):
    """tiny("block.key=value", ...) -> a checked configuration of a run in the test's folder."""

    def make(**blocks) -> RunConfig:
        tree = {key: dict(value) for key, value in TINY.items()} | {"run_dir": str(tmp_path / "run")}
        for name, block in blocks.items():
            kept = tree.get(name, {}) if isinstance(block, dict) and "name" not in block else {}
            tree[name] = {**kept, **block} if isinstance(block, dict) else block
        return parse_config(tree)

    return make
