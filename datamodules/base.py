"""What every data module's configuration has, and the registry that names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from mmtok.registry import Registry

if TYPE_CHECKING:  # every spawned loader worker imports this file; Lightning would cost it seconds
    from datamodules.module import ShardDataModule


@dataclass(frozen=True, kw_only=True)
class WeightedSet:
    """One shard set of a mixture."""

    path: str
    """Folder of a shard set (with its manifest.json), or the manifest itself; a path or an address."""
    weight: float = 1.0
    """Share of the samples, relative to the other sets'."""

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(
                f"weight={self.weight} of {self.path} must be above 0. Leave a set out to not train on it."
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where samples come from, in what order, and how many make an update."""

    gives: ClassVar[str] = ""
    """What batches are of: a modality of tokenizers that are trained on them, or something else; empty is not said."""
    shards: str | tuple[WeightedSet, ...]
    """A shard set to train on (a folder, or an s3:, https:, gs: or hf: address), or a weighted list of them."""
    val_shards: str | tuple[str, ...] | None = None
    """A shard set to validate on, or several, read one after the other; by default the `val` (else `test`) set beside
    each training set that has one."""
    batch_size: int = 64
    """Samples of one update, over all ranks and accumulated batches; of sounds, crops."""
    val_batch_size: int = 64
    """Samples of one validation batch of one rank."""
    val_samples: int = 1000
    """Validation samples read at most of each set, its first ones."""
    workers: int = 1
    """Loader processes of each rank; 0 decodes in the training process. The order of samples never depends on it."""
    streams: int = 8
    """Canonical streams the shards are laid over. The order is the same for every world size that divides it."""
    shuffle: int = 4096
    """Samples of a stream that are permuted together; 0 reads in shard order. Larger mixes better and seeks more."""
    max_bad_fraction: float = 0.01
    """Share of unreadable samples above which the run stops."""
    cache_dir: str | None = None
    """Folder of the node's cache of remote shards; None means the user's cache folder."""
    cache_gb: float | None = None
    """Most gigabytes in it; None means four fifths of its disk."""
    allow_pipe: bool = False
    """Permit `pipe:` shard addresses, which run shell commands."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("val_batch_size", 1), ("val_samples", 0), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {least}.")
        if not self.shards:
            raise ValueError("shards names no shard set. Give a folder or an address, or a list of {path, weight}.")
        if self.cache_gb is not None and self.cache_gb <= 0:
            raise ValueError(f"cache_gb={self.cache_gb} must be above 0.")

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of a training item without its channels: (height, width), or (samples,); empty where items differ."""
        return ()

    @property
    def items_per_sample(self) -> int:
        """Items of a batch that are made of each sample read."""
        return 1


datamodules: Registry[DataConfig, ShardDataModule] = Registry("data", DataConfig)
register_data = datamodules.register
