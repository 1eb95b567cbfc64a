"""Logs what the loader did, and says which samples could not be read: their slots are filled, and nobody would know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback, Trainer

SHOWN = 5
"""Lines about single samples; after them only the count, at the end."""


class BadSamples(Callback):
    """Logs `data/bad_share`, the share of slots whose own sample was bad, over all ranks; names the first rank's.

    Beside it, what the stream says of itself with each batch: epochs of each set, seconds of reading and decoding, and
    what the cache of remote shards did.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.count = 0
        self._overfull = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Mapping[str, Any], batch_idx: int
    ) -> None:
        bad = batch.get("bad")
        if bad is None:
            return
        figures = batch.get("loader", {})
        pl_module.log_scalars({"data/bad_share": len(bad) / batch["x"].shape[0], **figures})
        if figures.get("speed/cache_overfull") and not self._overfull and trainer.is_global_zero:
            self._overfull = True
            self.say(
                "WARNING: the node's cache of remote shards has grown past its limit: all that it holds are in use. "
                "Raise data.cache_gb, or lower data.workers, data.streams or the size of the shards."
            )
        for sample in bad:
            self.count += 1
            if self.count <= SHOWN and trainer.is_global_zero:
                self.say(f"left out {sample.key} of shard {sample.shard}: {sample.reason}")

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self.count > SHOWN and trainer.is_global_zero:
            self.say(f"left out {self.count:,} samples that could not be read. Look at all: mmtok shards verify SET")

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.count = int(state_dict["count"])
