"""An error of the system that may pass says nothing about a shard; one of the path itself does."""

import errno
import mmap
import os

import pytest

from datamodules.order import Place
from datamodules.reader import Reader
from datamodules.shardindex import ShardError, ShardIndex
from datamodules.shards import ShardSet
from datamodules.writer import ShardWriter

PASSING = ("EIO", "ESTALE", "EMFILE", "ENFILE", "EINTR", "ETIMEDOUT", "ENOMEM", "EAGAIN")


@pytest.fixture
def shards(tmp_path):
    with ShardWriter(tmp_path / "set", kind="text") as writer:
        for i in range(4):
            writer.add(f"s{i}", {"txt": b"words"})
    return ShardSet.open(tmp_path / "set")


def failing(name):
    def fail(*args, **options):
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    return fail


def reader(shards):
    return Reader([shards], lambda sample: sample.key, seed=0, max_bad_fraction=1.0)


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("where", [(os, "open"), (mmap, "mmap"), (os, "fstat")])
def test_a_passing_error_of_opening_is_not_remembered(shards, monkeypatch, name, where):
    with monkeypatch.context() as patch:
        patch.setattr(*where, failing(name))
        with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as caught:
            shards.read(0, 1)
        assert not isinstance(caught.value, ShardError)
        assert shards.key(0, 1) == "#1"
        item, bad = reader(shards).attempt(0, Place(0, 0, 1))
        assert (item, bad.shard, bad.key) == (None, "shard-000000", "#1")
    assert reader(shards).attempt(0, Place(0, 0, 1)) == ("s1", None)


def test_descriptors_are_given_back_where_an_index_cannot_be_mapped(shards, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(mmap, "mmap", failing("ENOMEM"))
    for _ in range(3):
        with pytest.raises(OSError, match="memory"):
            shards.index(0)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "EISDIR"])
def test_an_error_of_the_path_itself_is_that_of_the_shard_and_lasts(shards, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", failing(name))
        with pytest.raises(ShardError, match="shard-000000: .*" + os.strerror(getattr(errno, name))):
            shards.read(0, 1)
    with pytest.raises(ShardError, match=os.strerror(getattr(errno, name))):
        shards.read(0, 1)


def test_a_missing_and_an_empty_index_are_damage(tmp_path):
    with pytest.raises(ShardError, match=r"cannot be read as an index .*No such file"):
        ShardIndex.open(tmp_path / "none.idx")
    (tmp_path / "empty.idx").touch()
    with pytest.raises(ShardError, match=r"cannot be read as an index .*empty"):
        ShardIndex.open(tmp_path / "empty.idx")
