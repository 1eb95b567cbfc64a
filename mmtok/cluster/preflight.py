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
from datamodules.shards import ShardSet
from mmtok.cluster.config import ClusterConfig
from mmtok.config import AnyConfig, RunConfig, differences, load_config
from mmtok.export.folder import is_model
from mmtok.loading import checkpoint_path
from mmtok.losses.base import Loss, losses
from mmtok.tokenizers.base import build_tokenizer
from mmtok.training.adversary import check_discriminator


def preflight(config: RunConfig, cluster: ClusterConfig) -> list[str]:
    """Every problem as a sentence; empty where the job may be submitted. Nothing of the run is written."""
    return [
        *_tasks(config, cluster), *_software(cluster), *_recipe(config), *_out_of_sight(config, cluster),
        *missing_data(config, cluster), *missing_weights(config), *_paths(config),
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


def missing_data(config: AnyConfig, cluster: ClusterConfig | None = None) -> Iterator[str]:
    """Local shard sets, tars of them and checkpoints that are not there. Remote ones are not asked for.

    Args:
        config: the run.
        cluster: where it runs; tells where on this machine a container's folders are.
    """
    begins = config.init_from if isinstance(config, RunConfig) else None
    paths = _training_sets(config)
    for path in [*paths, *_validation_sets(config)]:
        if "://" in path:
            continue
        place = _outside(path, cluster)
        if not place.exists():
            yield f"no shard set at {place} (mmtok shards build)"
        elif place.is_dir() and not (place / MANIFEST).is_file():
            yield f"no {MANIFEST} in {place} (mmtok shards index)"
        else:
            yield from _missing_tars(place, config.data.allow_pipe)
    places = [_outside(path, cluster) for path in paths if "://" not in path]
    if config.data.val_shards is None and len(places) == len(paths) and all(place.exists() for place in places):
        homes = [place.parent if place.is_file() else place for place in places]
        # As `datamodules/module.py` looks for them.
        if not any((home.parent / name / MANIFEST).is_file() for home in homes for name in ("val", "test")):
            yield f"no set 'val' or 'test' stands beside {homes[0]}. Name one: data.val_shards=FOLDER"
    if begins:
        try:
            place = _outside(begins, cluster)
            start = checkpoint_path(place)
            if not is_model(place) and not start.is_file():
                yield f"init_from={begins}: there is no {start}."
        except ValueError as error:
            yield f"init_from: {error}"


def _training_sets(config: AnyConfig) -> list[str]:
    shards = config.data.shards
    return [shards] if isinstance(shards, str) else [weighted.path for weighted in shards]


def _validation_sets(config: AnyConfig) -> list[str]:
    named = config.data.val_shards or ()
    return [named] if isinstance(named, str) else list(named)


def _missing_tars(place: Path, allow_pipe: bool) -> Iterator[str]:
    """What a set lists and does not have: found in the queue, it would stop the run in the midst of an epoch."""
    try:
        listed = ShardSet.open(place, allow_pipe=allow_pipe)
    except ValueError as error:
        yield str(error)
        return
    wrong = []
    for number, shard in enumerate(listed.manifest.shards):
        if listed.is_remote(number):
            continue
        tar = Path(listed.tar_path(number))
        if not tar.is_file():
            wrong.append(f"{tar} is not there")
        elif shard.bytes is not None and tar.stat().st_size != shard.bytes:
            wrong.append(f"{tar} has {tar.stat().st_size:,} bytes, the manifest says {shard.bytes:,}")
    if wrong:
        others = f", and {len(wrong) - 1:,} more are wrong" if len(wrong) > 1 else ""
        yield f"{wrong[0]}{others}. Look at all: mmtok shards verify {place}"


def _mounted(path: str, cluster: ClusterConfig | None) -> Path | None:
    """Where on this machine a mounted `path` of the container is; None where no mount has it."""
    for mount in cluster.container.mounts if cluster else ():
        outside, inside = [*mount.split(":"), mount][:2]
        if Path(path).is_relative_to(inside):
            return Path(outside) / Path(path).relative_to(inside)
    return None


def _outside(path: str, cluster: ClusterConfig | None) -> Path:
    return _mounted(path, cluster) or Path(path)


def _out_of_sight(config: RunConfig, cluster: ClusterConfig) -> Iterator[str]:
    """What lies outside all that a container is given."""
    if cluster.container.kind == "none":
        return
    seen = [Path.cwd(), Path(config.run_dir).absolute()]
    if cluster.container.kind == "apptainer":
        seen += [Path.home(), Path("/tmp")]  # which it brings along unless told otherwise
    start = [config.init_from] if config.init_from else []
    for path in [*_training_sets(config), *_validation_sets(config), *start]:
        place = Path(path).absolute()
        if "://" in path or _mounted(path, cluster) or any(place.is_relative_to(home) for home in seen):
            continue
        yield f"{path} is not seen in the container. Add it: cluster.container.mounts=[{place.parent}:{place.parent}]"


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
