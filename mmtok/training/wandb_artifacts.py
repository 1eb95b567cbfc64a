"""What a W&B run was made from and what it made, as artifacts: configuration -> data -> checkpoints.

The run uses its configuration and a description of its data, and logs its checkpoints. By default each is a small JSON
file: with the checksum of a checkpoint and where it lies, not its bytes. Two runs over the same shards use the same
version of the same artifact, since W&B compares contents.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmtok.loading import LAST
from mmtok.seal import carried_checksum
from mmtok.training.logs import WandbConfig
from mmtok.training.wandb_pieces import STAGED


class Lineage:
    """The artifacts of one start of a run.

    Checkpoints are found by looking at `checkpoints/last.ckpt`, so that whoever writes them need not know of W&B.

    Args:
        run: the W&B run.
        config: says how much of a checkpoint is uploaded.
        run_dir: the run directory.
        known: `name:alias` of what earlier starts have logged.
    """

    def __init__(self, run: Any, config: WandbConfig, run_dir: Path, known: Collection[str] = ()) -> None:
        self.run = run
        self.mode = config.artifacts
        self.last = run_dir / "checkpoints" / LAST
        self.folder = Path(run.dir).parent / STAGED
        self.known = {*known}
        self._seen: tuple[int, int] | None = None

    def sources(self, settings: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        """What the run is made from.

        Args:
            settings: the resolved configuration.
            dataset: from `describe`; None where the data are no shard sets.
        """
        if self.mode == "none":
            return
        self._log(f"config-{self.run.id}", "config", settings, {}, used=True)
        if dataset:
            counts = {key: value for key, value in dataset.items() if key != "sets"}
            self._log(f"dataset-{dataset['digest'][:16]}", "dataset", dataset, counts, used=True)

    def look(self) -> None:
        """Log the last checkpoint, where it is not the one that was seen before."""
        if self.mode == "none" or not self.last.is_file():
            return
        stat = self.last.stat()
        if (seen := (stat.st_ino, stat.st_mtime_ns)) == self._seen:
            return
        self._seen = seen
        held = self.folder / f"held-{stat.st_ino}.ckpt"
        held.parent.mkdir(parents=True, exist_ok=True)
        held.unlink(missing_ok=True)
        os.link(self.last, held)  # the bytes stay, whichever checkpoint takes the name
        try:
            self._checkpoint(held)
        finally:
            held.unlink(missing_ok=True)

    def _checkpoint(self, file: Path) -> None:
        # Mapped, so that only the outline is read.
        step = int(torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"])
        name = f"checkpoint-{self.run.id}"
        if f"{name}:step-{step}" in self.known:
            return
        facts = {
            "step": step, "bytes": file.stat().st_size, "sha256": carried_checksum(file),
            "path": str(self.last.absolute().with_name(f"step-{step}.ckpt")), "host": socket.gethostname(),
        }  # fmt: skip
        extra = None
        if self.mode == "checkpoints":
            extra = self.folder / f"step-{step}.ckpt"
            extra.unlink(missing_ok=True)
            os.link(file, extra)
        self._log(name, "model", facts, facts, aliases=["latest", f"step-{step}"], file=extra)
        self.known.add(f"{name}:step-{step}")

    def _log(
        self,
        name: str,
        kind: str,
        content: Mapping[str, Any],
        metadata: Mapping[str, Any],
        *,
        aliases: Iterable[str] = ("latest",),
        used: bool = False,
        file: Path | None = None,
    ) -> None:
        import wandb

        with _staging(self.folder):
            artifact = wandb.Artifact(name, type=kind, metadata=dict(metadata))
            # Two artifacts without a file would be the same version, whatever their metadata.
            with artifact.new_file(f"{kind}.json", encoding="utf-8") as written:
                written.write(json.dumps(content, indent=1, sort_keys=True) + "\n")
            if file is not None:
                artifact.add_file(str(file), name=file.name, policy="immutable", skip_cache=True)
            if used:
                # use_artifact waits for the upload, and refuses offline; the record that it makes does neither.
                self.run._log_artifact(artifact, aliases=list(aliases), is_user_created=True, use_after_commit=True)
            else:
                self.run.log_artifact(artifact, aliases=list(aliases))


@contextmanager
def _staging(folder: Path) -> Iterator[None]:
    """W&B's staging in a folder of the run, rather than in the home directory of a compute node."""
    before = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = str(folder.absolute())
    try:
        yield
    finally:
        os.environ.pop("WANDB_DATA_DIR")
        if before is not None:
            os.environ["WANDB_DATA_DIR"] = before


def describe(config: Any) -> dict[str, Any]:
    """The shard sets that a data configuration names: counts, and a digest of the list of shards.

    Args:
        config: a `datamodules.base.DataConfig`.
    """
    from datamodules.stream import open_sets

    shares = [(config.shards, 1.0)] if isinstance(config.shards, str) else [(s.path, s.weight) for s in config.shards]
    sets = []
    for (path, weight), one in zip(shares, open_sets(config), strict=True):
        manifest = one.manifest
        lines = "".join(f"{shard.name} {shard.samples} {shard.bytes} {shard.sha256}\n" for shard in manifest.shards)
        sets.append({
            "path": path, "weight": weight, "kind": manifest.kind, "split": manifest.split, "samples": manifest.samples,
            "shards": len(manifest.shards), "bytes": sum(shard.bytes or 0 for shard in manifest.shards),
            "digest": hashlib.sha256(lines.encode()).hexdigest(),
        })  # fmt: skip
    digest = hashlib.sha256("".join(f"{one['digest']} {one['weight']}\n" for one in sets).encode()).hexdigest()
    return {"digest": digest, "samples": sum(one["samples"] for one in sets), "sets": sets}
