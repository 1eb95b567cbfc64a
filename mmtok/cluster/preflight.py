"""What would make a job fail after hours in the queue, found before it is submitted."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch

from datamodules.images import ImagesConfig
from datamodules.manifest import MANIFEST
from datamodules.order import BatchPlan
from mmtok.cluster.config import ClusterConfig
from mmtok.config import RunConfig, differences, load_config
from mmtok.losses.base import Loss, losses
from mmtok.tokenizers.base import build_tokenizer
from mmtok.training.adversary import check_discriminator


def preflight(config: RunConfig, cluster: ClusterConfig) -> list[str]:
    """Every problem as a sentence; empty where the job may be submitted. Nothing of the run is written."""
    return [
        *_tasks(config, cluster), *_software(cluster), *_recipe(config), *missing_data(config),
        *missing_weights(config), *_paths(config),
    ]  # fmt: skip


def _tasks(config: RunConfig, cluster: ClusterConfig) -> Iterator[str]:
    trainer, tasks = config.trainer, cluster.tasks
    if trainer.devices != tasks or trainer.num_nodes != cluster.nodes:
        yield (
            f"trainer.devices={trainer.devices}, trainer.num_nodes={trainer.num_nodes} do not match the cluster's "
            f"{tasks} tasks on each of {cluster.nodes} nodes. Leave both out, or change cluster.nodes and "
            "cluster.gpus_per_node."
        )
    if cluster.gpus_per_node and tasks != cluster.gpus_per_node:
        yield (
            f"cluster.tasks_per_node={tasks} does not match cluster.gpus_per_node={cluster.gpus_per_node}: every GPU "
            "has one task. Leave tasks_per_node out."
        )
    if trainer.accelerator == "gpu" and not cluster.gpus_per_node:
        yield "trainer.accelerator=gpu on a cluster without GPUs. Add hardware/cpu, or set cluster.gpus_per_node."
    if trainer.accelerator == "cpu" and cluster.gpus_per_node:
        yield f"trainer.accelerator=cpu would leave {cluster.gpus_per_node} GPUs of each node idle. Add hardware/gpu."
    try:
        BatchPlan.check(
            config.data.batch_size, cluster.world, accumulate=trainer.accumulate, each=config.data.items_per_sample
        )
    except ValueError as error:
        yield str(error)
    if config.data.workers >= cluster.cpus_per_task > 1:
        yield (
            f"data.workers={config.data.workers} and the training process need more than cluster.cpus_per_task="
            f"{cluster.cpus_per_task} cores. Set data.workers={cluster.cpus_per_task - 1}, or raise cpus_per_task."
        )


def _software(cluster: ClusterConfig) -> Iterator[str]:
    """Whether what is given by its path is there."""
    for key, path in (("python", cluster.python), ("container.image", cluster.container.image)):
        if path.startswith("/") and not Path(path).exists():
            yield f"cluster.{key}={path} is not there."


def _recipe(config: RunConfig) -> Iterator[str]:
    """Whether the networks can be built: on the meta device, which takes no memory."""
    try:
        with torch.device("meta"):
            tokenizer = build_tokenizer(config.tokenizer, config.quantizer)
        if config.adversary is not None and isinstance(config.data, ImagesConfig):
            check_discriminator(config.adversary, tokenizer.spec.channels, (config.data.image_size,) * 2)
    except (ValueError, RuntimeError) as error:
        yield f"the recipe does not build: {error}"


def missing_weights(config: RunConfig) -> Iterator[str]:
    """Pretrained weights that terms of the objective need and this machine does not have."""
    for name, term in config.loss.items():
        if term and (lack := cast(type[Loss], losses.class_of(term)).lacks(term)):
            yield f"loss.{name} lacks {lack.replace('loss.NAME', f'loss.{name}')}"


def missing_data(config: RunConfig) -> Iterator[str]:
    """Local shard sets that are not there. Remote ones are not asked for."""
    shards = config.data.shards
    paths = [shards] if isinstance(shards, str) else [weighted.path for weighted in shards]
    val = config.data.val_shards or ()
    for path in [*paths, *([val] if isinstance(val, str) else val)]:
        if "://" in path:
            continue
        if not Path(path).exists():
            yield f"no shard set at {path} (mmtok shards build)"
        elif Path(path).is_dir() and not (Path(path) / MANIFEST).is_file():
            yield f"no {MANIFEST} in {path} (mmtok shards index)"
    if config.data.val_shards is None and all("://" not in path and Path(path).exists() for path in paths):
        homes = [Path(path).parent if Path(path).is_file() else Path(path) for path in paths]
        # As `datamodules/module.py` looks for them.
        if not any((home.parent / name / MANIFEST).is_file() for home in homes for name in ("val", "test")):
            yield f"no set 'val' or 'test' stands beside {homes[0]}. Name one: data.val_shards=FOLDER"


def _paths(config: RunConfig) -> Iterator[str]:
    """Whether the run directory can be written, and is free for this experiment."""
    run_dir = Path(config.run_dir).absolute()
    standing = next(parent for parent in (run_dir, *run_dir.parents) if parent.exists())
    try:
        tempfile.TemporaryFile(dir=standing).close()
    except OSError as error:
        yield f"run_dir={run_dir} cannot be written ({error.strerror}). Give run_dir=ANOTHER."
    saved = run_dir / "config.yaml"
    if saved.is_file() and (changed := differences(load_config([str(saved)]).config, config)):
        lines = "; ".join(changed)
        yield f"run_dir={run_dir} holds another experiment, which differs in {lines}. Give run_dir=ANOTHER."
