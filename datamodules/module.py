"""What every data module of shard sets shares: loaders for this rank, from this update on, and floats on the device."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.base import DataConfig, datamodules
from datamodules.reader import SlotSample
from datamodules.remote import beside, shown
from datamodules.shardindex import ShardError
from datamodules.shards import ShardSet
from datamodules.stream import BatchStream, ValStream, loader, open_set, open_sets
from mmtok.schema import ConfigError


class ShardDataModule(LightningDataModule):
    """Subclasses write `item`, `batch` and `to_signal`.

    Rank, world and position are read from the trainer in its own process and given to the workers.
    """

    content: ClassVar[tuple[str, ...]] = ()
    """Members of which every sample has one, by the last part of their extension: what its modality is about."""
    extensions: tuple[str, ...] | None = None
    """Members of a sample that `item` looks at; None reads all."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config
        self.seed = 0
        self.accumulate = 1
        self._opened: dict[str, list[ShardSet]] = {}

    def plan(self, *, seed: int, accumulate: int) -> None:
        """Take over what the run decides.

        Raises:
            ConfigError: a shard set is missing; says how to make one. Found before anything is trained.
            ValueError: sets of a mixture do not fit together, or one holds nothing that `item` looks at.
        """
        self.seed, self.accumulate = seed, accumulate
        self.check_content([*self.training_sets(), *self.validation_sets()])

    def check_content(self, sets: Iterable[ShardSet]) -> None:
        """Refuse sets that hold nothing `item` looks at.

        Raises:
            ConfigError: names the set and what it holds.
        """
        for one in sets:
            listed = one.manifest.extensions
            # Nothing is listed where only sidecars were read.
            if self.content and listed and not {name.rpartition(".")[2] for name in listed} & set(self.content):
                raise ConfigError(
                    f"{shown(one.home)} holds {', '.join(listed)}; data.name={datamodules.name_of(self.config)} reads "
                    f"{', '.join(self.content)}."
                )

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
            self.training_sets(), self.config, partial(self.item, training=True), self.batch,
            seed=self.seed, rank=rank, world=world, accumulate=self.accumulate, start_update=start,
            extensions=self.extensions,
        )  # fmt: skip
        return loader(stream, self.config.workers, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader:
        rank, world, _ = self._place()
        stream = ValStream(
            self.validation_sets(), self.config, partial(self.item, training=False), self.batch,
            seed=self.seed, rank=rank, world=world, extensions=self.extensions,
        )  # fmt: skip
        # One process at most: it is read for seconds at a time, beside the training loader's.
        return loader(stream, min(1, self.config.workers), pin_memory=torch.cuda.is_available())

    def training_sets(self) -> list[ShardSet]:
        """The sets to train on, opened once: a remote manifest is not asked for again at each checkpoint."""
        if "train" not in self._opened:
            self._opened["train"] = open_sets(self.config)
        return self._opened["train"]

    def validation_sets(self) -> list[ShardSet]:
        """The sets to validate on, one after the other.

        Raises:
            ConfigError: none is named, and none stands beside a training set.
        """
        if "val" not in self._opened:
            given = self.config.val_shards
            if given is None:
                self._opened["val"] = self._beside()
            else:
                self._opened["val"] = [
                    open_set(one, self.config) for one in ([given] if isinstance(given, str) else given)
                ]
        return self._opened["val"]

    def _beside(self) -> list[ShardSet]:
        """The set `val`, else `test`, beside each training set that has one."""
        found: dict[str, ShardSet] = {}
        for one in self.training_sets():
            for name in ("val", "test"):
                home = beside(one.home, name)
                try:
                    found.setdefault(home, open_set(home, self.config))
                except ShardError:
                    continue
                break
        if not found:
            first = shown(self.training_sets()[0].home)
            raise ConfigError(
                f"no set 'val' or 'test' stands beside {first}. Name one: data.val_shards=FOLDER. "
                "Of existing tars, index some apart: mmtok shards index SOME_TARS -o SETS/val."
            )
        return list(found.values())

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        return batch | {"x": self.to_signal(batch["x"])}

    def __getstate__(self) -> dict[str, Any]:
        # `item` goes to workers that may be spawned; a trainer cannot, with its loops and loggers.
        return self.__dict__ | {"trainer": None, "_opened": {}}

    def state_dict(self) -> dict[str, Any]:
        """What the order of samples depends on, besides the configuration."""
        return {"sets": [one.manifest.fingerprint for one in self.training_sets()]}

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
