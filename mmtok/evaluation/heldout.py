"""A held-out set that a tokenizer is measured on, as its run reads it or another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datamodules.base import DataConfig
    from datamodules.module import ShardDataModule

PREPROCESSING = (
    "image_size", "crop", "resize", "interpolation", "grey", "sample_rate", "channels", "val_seconds",
)  # fmt: skip
"""Settings of data modules that change what is measured; validation takes the middle of a picture whatever `crop` says.
"""


class HeldOut:
    """Batches that can be read again, in the same order.

    Args:
        data: the run's settings.
        shards: another set than the one the run validates on.
        samples: items at most; None means `data.val_samples`.
        examples: how many items are to be shown, spread over the set.
    """

    def __init__(
        self, data: DataConfig, *, shards: str | None = None, samples: int | None = None, examples: int = 1
    ) -> None:
        import dataclasses

        from datamodules.base import datamodules

        if samples is not None:
            data = dataclasses.replace(data, val_samples=samples)
        if shards:
            data = dataclasses.replace(data, val_shards=shards)
            if getattr(data, "teacher", ""):
                # What taught the codes need not lie in every set that they are measured on.
                data = dataclasses.replace(data, teacher="")  # type: ignore[call-arg]
        self.data = data
        self.module: ShardDataModule = datamodules.build(data)
        self.sets = self.module.validation_sets()
        self.count = sum(min(len(one), data.val_samples) for one in self.sets)
        self.every = max(1, self.count // examples)
        # Most sets are called 'val': another one must not write over the figures of the run's own.
        self.name = "+".join(one.name(2 if shards or len(self.sets) > 1 else 1) for one in self.sets)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        from datamodules.stream import only_valid

        return map(only_valid, self.module.val_dataloader())

    def notes(self) -> dict[str, Any]:
        """What changes a number."""
        from datamodules.remote import shown
        from mmtok.schema import to_plain

        settings = {key: value for key, value in to_plain(self.data).items() if key in PREPROCESSING}
        of = {
            "set": " + ".join(shown(one.home) for one in self.sets),
            "manifest": "+".join(one.manifest.fingerprint for one in self.sets),
            "of": sum(map(len, self.sets)),
        }
        return {"data": of, "preprocessing": settings}


class Signals:
    """The same batches with x as a tokenizer takes it."""

    def __init__(self, held_out: HeldOut) -> None:
        self.held_out = held_out

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for batch in self.held_out:
            yield {**batch, "x": self.held_out.module.to_signal(batch["x"])}
