"""Streams over remote shard sets and mixtures: the same batches, whoever fetches, whatever disappears."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest

from datamodules.base import DataConfig, WeightedSet
from datamodules.decode import decode
from datamodules.manifest import Manifest
from datamodules.reader import BadDataError
from datamodules.remote import UnreachableError
from datamodules.shards import ShardSet
from datamodules.stream import BatchStream, ValStream, loader, open_sets
from datamodules.writer import ShardWriter


def write(folder, samples=120, kind="images", start=0):
    with ShardWriter(folder, kind=kind, samples_per_shard=20) as writer:
        for i in range(start, start + samples):
            writer.add(f"s{i:04d}", {"cls": str(i).encode()})
    return folder


def as_item(sample):
    return sample.set, decode("cls", sample.members["cls"])


def collate(items):
    return {"items": items}


def stream(config, **options):
    return BatchStream(open_sets(config), config, as_item, collate, seed=1, **options)


def items(batches):
    return [batch["items"] for batch in batches]


@pytest.fixture
def local(tmp_path):
    return DataConfig(shards=str(write(tmp_path / "set")), batch_size=12, streams=4, shuffle=16)


@pytest.fixture
def remote(local, web, tmp_path):
    web.serve(tmp_path / "set")
    return replace(local, shards=f"{web.url}/set", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_at_an_http_address_gives_the_batches_of_a_local_one_and_each_tar_is_fetched_once(
    local, remote, web, workers
):
    ours = list(islice(loader(stream(remote), workers, context="fork" if workers else None), 12))
    assert items(ours) == items(islice(stream(local), 12))
    often = Counter(path for path, _ in web.requests if path.endswith(".tar"))
    assert set(often.values()) == {1}
    assert sum(batch["loader"]["speed/cache_misses"] for batch in ours) <= len(often) == 6


def test_a_set_in_s3_is_read_by_workers_after_the_parent_read_its_manifest(local, s3, tmp_path):
    for path in (tmp_path / "set").iterdir():
        s3.upload_file(str(path), "data", f"sets/train/{path.name}")
    config = replace(local, shards="s3://data/sets/train", cache_dir=str(tmp_path / "cache"))
    assert items(islice(loader(stream(config), 1, context="fork"), 8)) == items(islice(stream(local), 8))
    assert ShardSet.open("s3://data/sets/train/manifest.json").name(2) == "sets-train"


def test_a_remote_set_without_indexes_is_indexed_in_the_cache(local, remote, web):
    for path in [path for path in web.files if path.endswith(".idx")]:
        del web.files[path]
    assert items(islice(stream(remote), 12)) == items(islice(stream(local), 12))


def test_shards_are_there_before_the_stream_comes_to_them(remote, web, tmp_path):
    """With all of the stretch ahead of it fetched, a server that has gone is not missed."""
    batches = iter(stream(remote))
    next(batches)
    for _ in range(500):
        if len(list((tmp_path / "cache").glob("*.tar"))) == 6:
            break
        time.sleep(0.02)
    web.shutdown()
    assert len(list(islice(batches, 5))) == 5


def test_a_manifest_that_is_not_there_says_what_to_do(web):
    with pytest.raises(ValueError, match=r"/none is no shard set: http.*/none/manifest.json does not exist. Put a set"):
        ShardSet.open(f"{web.url}/none")


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "../other.tar"])
def test_a_remote_manifest_names_no_file_of_this_machine(local, web, tmp_path, url):
    manifest = Manifest.load(tmp_path / "set/manifest.json")
    shards = (replace(manifest.shards[0], url=url),)
    (tmp_path / "bad").mkdir()
    replace(manifest, shards=shards).save(tmp_path / "bad")
    web.serve(tmp_path / "bad", "/bad")
    with pytest.raises(ValueError, match="leads out of the set"):
        ShardSet.open(f"{web.url}/bad", cache_dir=tmp_path / "cache").read(0, 0)


def test_a_local_shard_deleted_in_the_epoch_is_named_and_stops_above_the_share(local, tmp_path):
    """What is open stays readable; the rest is missed when the stream comes to it."""
    batches = iter(stream(replace(local, streams=1, shuffle=0)))
    next(batches)
    for tar in (tmp_path / "set").glob("*.tar"):
        tar.unlink()
    with pytest.raises(BadDataError, match=r"in shard-00000\d: .*No such file or directory"):
        list(islice(batches, 200))


def test_a_remote_shard_deleted_in_the_epoch_is_a_bad_sample_and_an_outage_is_not(remote, web, waits):
    web.faults["/set/shard-000002.tar"] = ["404"] * 99
    batches = islice(stream(replace(remote, max_bad_fraction=0.5)), 10)
    bad = [one for batch in batches for one in batch["bad"]]
    assert {one.shard for one in bad} == {"shard-000002"}
    assert "shard-000002.tar does not exist" in bad[0].reason
    web.faults["/set/shard-000003.tar"] = ["503"] * 999
    shutil.rmtree(remote.cache_dir)
    with pytest.raises(UnreachableError, match=r"shard-000003.tar cannot be fetched: status 503"):
        list(islice(stream(replace(remote, max_bad_fraction=0.5)), 20))


def test_a_cache_smaller_than_the_set_is_kept_to_its_size(remote, tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.shards.IDLE", 20)
    monkeypatch.setattr("datamodules.ahead.THREADS", 0)
    size = max(path.stat().st_size for path in (tmp_path / "set").glob("*.tar"))
    config = replace(remote, streams=1, shuffle=0, cache_gb=3 * size / 1e9)
    evicted = 0.0
    for batch in islice(stream(config), 30):
        evicted += batch["loader"]["speed/cache_evictions"]
        held = sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.tar"))
        assert held <= 3 * size
    assert evicted > 5


@pytest.fixture
def mixture(tmp_path):
    paths = [write(tmp_path / name / "train", samples, start=start) for name, samples, start in
             (("big", 200, 0), ("small", 30, 1000))]  # fmt: skip
    shards = (WeightedSet(path=str(paths[0]), weight=3), WeightedSet(path=str(paths[1]), weight=1))
    return DataConfig(shards=shards, batch_size=24, streams=4, shuffle=8)


def test_a_mixture_says_how_far_each_set_is(mixture):
    batches = list(islice(stream(mixture), 20))
    last = batches[-1]["loader"]
    assert last["data/samples/big-train"] + last["data/samples/small-train"] == 480
    assert abs(last["data/samples/small-train"] - 120) < 2
    assert last["data/epochs/small-train"] == pytest.approx(last["data/samples/small-train"] / 28)
    counted = Counter(number for batch in batches for number, _ in batch["items"])
    assert counted[1] == last["data/samples/small-train"]


def test_a_mixture_continues_under_another_world_and_workers(mixture):
    whole = [sorted(batch) for batch in items(islice(stream(mixture), 10))]
    parts = [items(islice(loader(stream(mixture, rank=rank, world=2, start_update=5), 1, context="fork"), 5))
             for rank in (0, 1)]  # fmt: skip
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == whole[5:]


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_means_nothing_is_refused(weight):
    with pytest.raises(ValueError, match=r"weight=.* of a must be above 0"):
        WeightedSet(path="a", weight=weight)


def test_sets_of_different_kinds_are_not_mixed(mixture, tmp_path):
    other = WeightedSet(path=str(write(tmp_path / "text", kind="text")))
    with pytest.raises(ValueError, match=r"mixes different kinds of sample: .* of images, .* of text"):
        open_sets(replace(mixture, shards=(*mixture.shards, other)))
    with pytest.raises(ValueError, match="names no shard set"):
        replace(mixture, shards=())


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("workers", [0, 2])
def test_validation_covers_every_sample_of_every_set_once(mixture, world, workers):
    seen, lengths = Counter(), set()
    for rank in range(world):
        sets = open_sets(mixture)
        source = ValStream(sets, replace(mixture, val_batch_size=7), as_item, collate, seed=0, rank=rank, world=world)
        batches = list(loader(source, workers, context="fork" if workers else None))
        lengths.add(len(batches))
        for batch in batches:
            seen.update(item for item, valid in zip(batch["items"], batch["valid"], strict=True) if valid)
    assert len(lengths) == 1
    assert seen == Counter([(0, i) for i in range(200)] + [(1, 1000 + i) for i in range(30)])


def test_validation_takes_the_first_samples_of_each_set(mixture):
    source = ValStream(open_sets(mixture), replace(mixture, val_samples=50), as_item, collate, seed=0)
    taken = [item for batch in source for item, valid in zip(batch["items"], batch["valid"], strict=True) if valid]
    assert sorted(taken) == [(0, i) for i in range(50)] + [(1, 1000 + i) for i in range(30)]
