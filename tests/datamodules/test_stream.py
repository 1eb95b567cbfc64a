from __future__ import annotations

import hashlib
import os
import resource
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from datamodules.base import DataConfig, WeightedSet
from datamodules.decode import decode
from datamodules.reader import ENOUGH, BadCount, BadDataError, BadSample
from datamodules.shards import ShardSet, share_of_files
from datamodules.stream import BatchStream, ValStream, loader, open_sets
from datamodules.writer import ShardWriter

SAMPLES = 203


def write(folder, samples=SAMPLES, bad=(), prefix="s"):
    with ShardWriter(folder, kind="images", samples_per_shard=40) as writer:
        for i in range(samples):
            content = b"broken" if i in bad else str(i).encode()
            writer.add(f"{prefix}{i:04d}", {"cls": content})
    return folder


def as_item(sample):
    return {"key": sample.key, "label": decode("cls", sample.members["cls"]), "seed": sample.seed}


def collate(items):
    return {name: [item[name] for item in items] for name in items[0]}


def stream_of(config, collate=collate, **options):
    return BatchStream(open_sets(config), config, as_item, collate, **{"seed": 1} | options)


def keys_of(batches):
    return [tuple(zip(batch["key"], batch["seed"], strict=True)) for batch in batches]


def global_batches(config, world, workers, updates, accumulate=1, start=0, context="fork"):
    """The sorted samples of each update, over all ranks."""
    joined = [[] for _ in range(updates)]
    for rank in range(world):
        stream = stream_of(config, rank=rank, world=world, accumulate=accumulate, start_update=start)
        micro = islice(loader(stream, workers, context=context), updates * accumulate)
        for number, batch in enumerate(keys_of(micro)):
            joined[number // accumulate].extend(batch)
    return [hashlib.sha256(repr(sorted(batch)).encode()).hexdigest() for batch in joined]


@pytest.fixture
def config(tmp_path):
    return DataConfig(shards=str(write(tmp_path / "set")), batch_size=12, streams=4, shuffle=16)


@pytest.mark.parametrize(("world", "workers", "accumulate"), [(1, 3, 1), (2, 1, 1), (4, 2, 1), (2, 2, 3), (3, 0, 1)])
def test_global_batches_depend_on_neither_world_nor_workers(config, world, workers, accumulate):
    expected = global_batches(config, 1, 0, 25)
    assert global_batches(config, world, workers, 25, accumulate) == expected


@pytest.mark.parametrize("start", [1, 7, 11])
@pytest.mark.parametrize("workers", [0, 2])
def test_resume_at_any_update_equals_uninterrupted(config, start, workers):
    """Platform 9: with 2 workers, resuming at an odd batch was wrong where workers were numbered from 0."""
    whole = keys_of(islice(loader(stream_of(config), 0), 20))
    again = keys_of(islice(loader(stream_of(config, start_update=start), workers, context="fork"), 20 - start))
    assert again == whole[start:]


def test_a_mixture_of_many_shards_stays_within_the_limit_of_open_files(tmp_path):
    """Each sample of a tar that could not be opened for that would count as unreadable."""
    names = [str(tmp_path / str(i)) for i in range(3)]
    for name in names:
        with ShardWriter(name, kind="images", samples_per_shard=1) as writer:
            for i in range(20):
                writer.add(f"{i:02d}", {"cls": b"1"})
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = max(map(int, os.listdir("/proc/self/fd"))) + 1
    most = taken + max(48, taken // 3 + 8)  # room for the quarter of the limit that sets to train on may take
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        sets = open_sets(DataConfig(shards=tuple(WeightedSet(path=name) for name in names)))
        assert {one.max_open for one in sets} == {most // 24}
        for shard in range(20):
            assert [one.read(shard, 0).key for one in sets] == [f"{shard:02d}"] * 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert share_of_files(1) == 128


def test_resume_with_another_world_and_accumulation_continues_the_same_batches(config):
    whole = global_batches(config, 1, 0, 12)
    assert global_batches(config, 2, 1, 6, accumulate=2, start=6) == whole[6:]


def test_ranks_are_disjoint_under_spawn(config, monkeypatch):
    """Platform 3 trap 4: a spawned worker sees neither RANK nor a process group, and read what rank 0 reads."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    first, second = (stream_of(config, rank=rank, world=2) for rank in (0, 1))
    of_first = [key for batch in islice(first, 8) for key in batch["key"]]
    of_second = [key for batch in islice(loader(second, 1, context="spawn"), 8) for key in batch["key"]]
    assert len(of_first) == len(of_second) == 48
    assert not set(of_first) & set(of_second)


@pytest.mark.parametrize("world", [1, 2])
def test_fewer_shards_than_workers_leaves_none_idle(tmp_path, world):
    """Platform 3 trap 5: an empty worker raised, an empty rank hung."""
    config = DataConfig(shards=str(write(tmp_path / "one", samples=30)), batch_size=4, streams=4)
    assert len(open_sets(config)[0].counts) == 1
    assert len(global_batches(config, world, 3, 10)) == 10


def test_no_two_epochs_are_alike(config):
    """Platform 3 trap 1: WebDataset repeats one shard order."""
    config = replace(config, batch_size=4)
    per_epoch = SAMPLES // 4
    batches = keys_of(islice(stream_of(config), 3 * per_epoch))
    epochs = [sum(batches[i * per_epoch : (i + 1) * per_epoch], ()) for i in range(3)]
    orders = [[key for key, _ in epoch] for epoch in epochs]
    assert orders[0] != orders[1] != orders[2]
    assert all(max(Counter(keys).values()) == 1 for keys in orders)


def test_a_bad_sample_is_filled_from_its_block_and_counted(tmp_path):
    bad = {3, 50, 120}
    path = write(tmp_path / "bad", bad=bad)
    config = DataConfig(shards=str(path), batch_size=10, streams=2, shuffle=16, max_bad_fraction=0.1)
    good = replace(config, shards=str(write(tmp_path / "good")))
    batches = list(islice(stream_of(config), 20))
    twins = list(islice(stream_of(good), 20))
    reported = [one for batch in batches for one in batch["bad"]]
    assert {one.key for one in reported} == {f"s{i:04d}" for i in bad}
    assert all(one.shard.startswith("shard-") and "class number" in one.reason for one in reported)
    for batch, twin in zip(batches, twins, strict=True):
        assert len(batch["key"]) == 10
        filled = [a for a, b in zip(batch["key"], twin["key"], strict=True) if a != b]
        assert len(filled) == len(batch["bad"])
        assert not set(filled) & {f"s{i:04d}" for i in bad}
    assert global_batches(config, 2, 1, 20) == global_batches(config, 1, 0, 20)


def test_a_missing_tar_is_survived_and_named(tmp_path):
    path = write(tmp_path / "set")
    (path / "shard-000002.tar").unlink()
    config = DataConfig(shards=str(path), batch_size=10, streams=2, max_bad_fraction=0.5)
    batches = list(islice(stream_of(config), 20))
    reported = [one for batch in batches for one in batch["bad"]]
    assert {one.shard for one in reported} == {"shard-000002"}
    assert reported[0].reason.endswith("shard-000002.tar: No such file or directory")


def test_too_many_bad_samples_stop_the_run(tmp_path):
    config = DataConfig(shards=str(write(tmp_path / "bad", bad=set(range(0, SAMPLES, 10)))), batch_size=10, streams=2)
    with pytest.raises(BadDataError, match=r"max_bad_fraction=1\.0%.*The last: s\d+ in shard-.*mmtok shards verify"):
        list(islice(stream_of(config), 100))
    with pytest.raises(BadDataError, match="max_bad_fraction"):
        list(islice(loader(stream_of(config), 2, context="fork"), 200))


@pytest.mark.parametrize("file", ["shard-000000.tar", "shard-000000.idx"])
def test_a_reason_is_one_sentence_with_one_remedy(tmp_path, file):
    path = write(tmp_path / "set")
    for shard in path.glob(file.replace("000000", "*")):
        shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(BadDataError) as stopped:
        list(islice(stream_of(DataConfig(shards=str(path), batch_size=10, streams=2)), 2))
    assert str(stopped.value).count("mmtok shards") == 1
    assert ".." not in str(stopped.value).replace("...", "")


def test_nothing_readable_is_an_error_not_a_hang(tmp_path):
    path = write(tmp_path / "bad", bad=set(range(SAMPLES)))
    config = DataConfig(shards=str(path), batch_size=10, streams=2, max_bad_fraction=1.0)
    with pytest.raises(BadDataError, match="no sample of a whole block"):
        next(iter(stream_of(config)))


def test_one_bad_sample_of_the_first_three_does_not_stop():
    count, bad = BadCount(0.01), BadSample("shard", "key", "reason")
    for i in range(ENOUGH):
        count.add(bad if i == 2 else None)


def test_a_decoder_that_is_wrong_itself_is_not_a_bad_sample(config):
    def broken(sample):
        raise KeyError("jpg")

    stream = BatchStream(open_sets(config), config, broken, collate, seed=1)
    with pytest.raises(KeyError):
        next(iter(stream))


def test_mixed_sets_keep_their_shares_and_resume(tmp_path):
    sets = (
        WeightedSet(path=str(write(tmp_path / "a", prefix="a")), weight=3),
        WeightedSet(path=str(write(tmp_path / "b", samples=50, prefix="b"))),
    )
    config = DataConfig(shards=sets, batch_size=32, streams=4, shuffle=16)
    whole = keys_of(islice(stream_of(config), 128))  # 4,096 slots: one window of each stream
    kinds = Counter(key[0] for batch in whole for key, _ in batch)
    assert abs(kinds["a"] - 3072) <= 4
    assert keys_of(islice(loader(stream_of(config, start_update=77), 2, context="fork"), 5)) == whole[77:82]
    assert global_batches(config, 4, 1, 10) == global_batches(config, 1, 0, 10)


@pytest.mark.parametrize("world", [1, 2, 3, 64])
@pytest.mark.parametrize("workers", [0, 2])
def test_validation_gives_every_rank_equal_batches_and_each_sample_once(config, world, workers):
    """Platform 2 trap 13 and 3 trap 5: ranks with unequal batches hang."""
    if world == 64 and workers:
        pytest.skip("128 processes show nothing more")
    config = replace(config, val_samples=50, val_batch_size=8)
    source, seen, shapes = ShardSet.open(config.shards), [], []
    for rank in range(world):
        stream = ValStream([source], config, as_item, collate, seed=0, rank=rank, world=world)
        batches = list(loader(stream, workers, context="fork"))
        assert len(batches) == len(stream)
        shapes.append([len(batch["key"]) for batch in batches])
        seen += [key for b in batches for key, valid in zip(b["key"], b["valid"], strict=True) if valid]
    assert all(shape == shapes[0] for shape in shapes)
    assert sorted(seen) == [f"s{i:04d}" for i in range(50)]


def test_validation_leaves_bad_samples_out_and_says_so(tmp_path):
    path = write(tmp_path / "bad", bad={4, 9})
    config = DataConfig(shards=str(path), val_samples=60, val_batch_size=16, max_bad_fraction=0.1)
    batches = list(ValStream([ShardSet.open(path)], config, as_item, collate, seed=0, rank=0, world=1))
    assert sum(sum(batch["valid"]) for batch in batches) == 58
    assert {one.key for batch in batches for one in batch["bad"]} == {"s0004", "s0009"}
