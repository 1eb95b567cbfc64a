"""What every data module of shard sets shares: loaders for this rank, from this update on, and floats on the device."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import DataConfig
from datamodules.shards import MANIFEST, ShardSet
from datamodules.stream import BatchStream, SlotSample, ValStream, loader, open_sets
from mmtok.schema import ConfigError


class ShardDataModule(LightningDataModule):
    """Subclasses write `item`, `batch` and `to_signal`.

    Rank, world and position are read from the trainer in its own process and given to the workers.
    """

    extensions: ClassVar[tuple[str, ...] | None] = None
    """Members of a sample that `item` looks at; None reads all."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config
        self.seed = 0
        self.accumulate = 1

    def plan(self, *, seed: int, accumulate: int) -> None:
        """Take over what the run decides.

        Raises:
            ConfigError: a shard set is missing; says how to make one. Found before anything is trained.
        """
        self.seed, self.accumulate = seed, accumulate
        open_sets(self.config)
        self.validation_set()

    def item(self, sample: SlotSample, training: bool) -> Any:
        """Bytes of one sample -> an item; raises DecodeError for one that cannot be used."""
        raise NotImplementedError

    def batch(self, items: list[Any]) -> dict[str, Any]:
        """Items -> a batch, as small as it travels best."""
        raise NotImplementedError

    def to_signal(self, x: Tensor) -> Tensor:
        """What workers hand over -> what a tokenizer takes; runs on the device."""
        raise NotImplementedError

    def train_dataloader(self) -> DataLoader:
        rank, world, start = self._place()
        stream = BatchStream(
            open_sets(self.config), self.config, partial(self.item, training=True), self.batch,
            seed=self.seed, rank=rank, world=world, accumulate=self.accumulate, start_update=start,
            extensions=self.extensions,
        )  # fmt: skip
        return loader(stream, self.config.workers, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader:
        rank, world, _ = self._place()
        stream = ValStream(
            self.validation_set(), self.config, partial(self.item, training=False), self.batch,
            seed=self.seed, rank=rank, world=world, extensions=self.extensions,
        )  # fmt: skip
        # One process at most: it is read for seconds at a time, beside the training loader's.
        return loader(stream, min(1, self.config.workers), pin_memory=torch.cuda.is_available())

    def validation_set(self) -> ShardSet:
        """The set to validate on.

        Raises:
            ConfigError: none is named, and none stands beside the training set.
        """
        given = self.config.val_shards
        if given is None:
            first = self.config.shards if isinstance(self.config.shards, str) else self.config.shards[0].path
            beside = Path(first).parent
            found = [beside / name for name in ("val", "test") if (beside / name / MANIFEST).is_file()]
            if not found:
                raise ConfigError(
                    f"no set 'val' or 'test' stands beside {first}. Name one: data.val_shards=FOLDER. "
                    "Of existing tars, index some apart: mmtok shards index SOME_TARS -o SETS/val."
                )
            given = str(found[0])
        return ShardSet.open(given, cache_dir=self.config.cache_dir, allow_pipe=self.config.allow_pipe)

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        return batch | {"x": self.to_signal(batch["x"])}

    def __getstate__(self) -> dict[str, Any]:
        # `item` goes to workers that may be spawned; a trainer cannot, with its loops and loggers.
        return self.__dict__ | {"trainer": None}

    def state_dict(self) -> dict[str, Any]:
        """What the order of samples depends on, besides the configuration."""
        return {"sets": [one.manifest.fingerprint for one in open_sets(self.config)]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on over other shards: the same position would mean other samples.

        Raises:
            ConfigError: the shard sets were built or indexed anew since the checkpoint.
        """
        found = self.state_dict()["sets"]
        if found != state_dict["sets"]:
            raise ConfigError(
                f"data.shards={self.config.shards} is no longer what the checkpoint was trained on (manifest {found}, "
                f"was {state_dict['sets']}): its position has no meaning there. Bring the shards back, or start anew "
                "from the run's weights: init_from=RUN run_dir=ANOTHER."
            )

    def _place(self) -> tuple[int, int, int]:
        """Rank, world, and updates done; alone at the start where there is no trainer."""
        trainer = self.trainer
        return (0, 1, 0) if trainer is None else (trainer.global_rank, trainer.world_size, trainer.global_step)
