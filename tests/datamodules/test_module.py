"""The data module on real fixtures: loaders, positions, workers, transfer."""

import pickle
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from datamodules.build import build_shards
from datamodules.images import Images, ImagesConfig
from datamodules.stream import loader


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    build_shards("fixture:fashion-mnist", folder)
    return folder


@pytest.fixture
def config(shards):
    return ImagesConfig(
        shards=str(shards / "train"), image_size=28, batch_size=24, val_batch_size=10, streams=4, shuffle=16, workers=0
    )


def module(config, *, rank=0, world=1, step=0, accumulate=1, seed=3):
    data = Images(config)
    data.plan(seed=seed, accumulate=accumulate)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, global_step=step)
    return data


def first(data, count):
    return [(batch["key"], batch["x"]) for batch in islice(data.train_dataloader(), count)]


def same(left, right):
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(left, right, strict=True))


def test_two_workers_give_the_batches_of_none(config):
    assert same(first(module(replace(config, workers=2)), 5), first(module(config), 5))


def test_a_restart_continues_where_the_run_stood(config):
    """platform.md 9: a loader asks worker 0 first, so an odd position goes wrong unless counted from the start."""
    whole = first(module(config), 8)
    assert same(first(module(replace(config, workers=2), step=3), 5), whole[3:])


def test_a_position_counts_updates_not_micro_batches(config):
    whole = first(module(config, accumulate=3), 9)
    assert same(first(module(config, accumulate=3, step=2), 3), whole[6:])


def test_ranks_share_the_global_batch(config):
    (whole,) = first(module(config), 1)
    parts = [first(module(config, rank=rank, world=2), 1)[0] for rank in range(2)]
    assert sorted(whole[0]) == sorted(parts[0][0] + parts[1][0])
    assert whole[1].sum() == parts[0][1].sum() + parts[1][1].sum()


def test_seeds_differ_in_order(config):
    assert not same(first(module(config, seed=1), 2), first(module(config, seed=2), 2))


def test_validation_is_finite_equal_over_ranks_and_complete(config):
    ranks = [list(module(config, rank=rank, world=3).val_dataloader()) for rank in range(3)]
    assert len({len(batches) for batches in ranks}) == 1
    keys = [
        key
        for batches in ranks
        for batch in batches
        for key, valid in zip(batch["key"], batch["valid"], strict=True)
        if valid
    ]
    assert len(keys) == len(set(keys)) == 64
    assert all(batch["label"].min() >= 0 for batch in ranks[0])


def test_validation_is_the_same_every_time(config):
    data = module(config)
    passes = [[(batch["key"], batch["x"]) for batch in data.val_dataloader()] for _ in range(2)]
    assert same(*passes)


def test_the_device_gets_floats(config):
    data = module(config)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch["x"].dtype == torch.float32
    assert batch["x"].shape == (24, 3, 28, 28)
    assert -1 <= batch["x"].min() < -0.9
    assert batch["label"].dtype == torch.int64
    assert len(batch["key"]) == 24


def test_a_module_is_pickled_without_its_trainer(config):
    data = module(config)
    data.trainer = lambda: None  # like a real one, it cannot be pickled
    assert pickle.loads(pickle.dumps(data)).trainer is None


@pytest.mark.slow
def test_a_spawned_worker_reads_what_its_rank_reads(config):
    """platform.md 3.4: a spawned worker sees no process group and would read as rank 0."""
    data = module(config, rank=1, world=2)
    expected = next(iter(data.train_dataloader()))
    spawned = next(iter(loader(data.train_dataloader().dataset, 1, context="spawn")))
    assert spawned["key"] == expected["key"]
    assert torch.equal(spawned["x"], expected["x"])


def test_a_missing_set_is_found_before_training_and_says_how_to_make_one(config, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere/train is no shard set.*mmtok shards build SOURCE -o"):
        Images(replace(config, shards=str(tmp_path / "nowhere/train"))).plan(seed=0, accumulate=1)


def test_validation_takes_the_test_set_where_there_is_no_val(config, shards, tmp_path):
    (tmp_path / "train").symlink_to(shards / "train")
    alone = replace(config, shards=str(tmp_path / "train"))
    with pytest.raises(ValueError, match=r"data\.val_shards=FOLDER"):
        Images(alone).plan(seed=0, accumulate=1)
    (tmp_path / "test").symlink_to(shards / "val")
    assert [len(one) for one in Images(alone).validation_sets()] == [64]
