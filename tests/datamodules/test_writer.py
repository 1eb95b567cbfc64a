from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import pickle
import signal
import tarfile

import pytest

from datamodules.manifest import Manifest
from datamodules.shards import ShardError, ShardSet
from datamodules.writer import MAX_KEY, ShardWriter, clean_key

OPTIONS = {"kind": "images", "split": "train", "classes": ("cat", "dog"), "samples_per_shard": 10}


def samples(count=25):
    return [(f"cat/{i}.png", {"jpg": bytes([i]) * (i * 7), "cls": b"1"}) for i in range(count)]


def write(folder, items, **options):
    with ShardWriter(folder, **OPTIONS | options) as writer:
        for key, members in items:
            writer.add(key, members)
    return writer.manifest


def write_part(folder, count, end):
    """Start a build that `end` interrupts."""
    with ShardWriter(folder, **OPTIONS) as writer:
        for key, members in samples()[:count]:
            writer.add(key, members)
        end()


def write_and_die(folder):
    write_part(folder, 23, lambda: os.kill(os.getpid(), signal.SIGKILL))


def interrupt():
    raise RuntimeError


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_at_any_position(tmp_path):
    manifest = write(tmp_path / "set", samples())
    source = ShardSet.open(tmp_path / "set")
    assert source.manifest == manifest
    assert source.counts.tolist() == [10, 10, 5]
    for i in (24, 0, 13):
        sample = source.read(i // 10, i % 10)
        assert sample.key == f"cat_{i}_png"
        assert sample.members == {"jpg": bytes([i]) * (i * 7), "cls": b"1"}
    assert source.read(2, 4, {"cls"}).members == {"cls": b"1"}
    assert source.read(2, 4, {"png"}).members == {}
    assert manifest.extensions == ("cls", "jpg")


def test_the_tars_are_plain_tars_that_the_manifest_describes(tmp_path):
    manifest = write(tmp_path / "set", samples())
    for shard in manifest.shards:
        path = tmp_path / "set" / f"{shard.name}.tar"
        assert path.stat().st_size == shard.bytes
        assert hashlib.sha256(path.read_bytes()).hexdigest() == shard.sha256
        with tarfile.open(path) as tar:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


def test_equal_samples_give_equal_bytes(tmp_path):
    write(tmp_path / "a", samples())
    write(tmp_path / "b", samples())
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_shards_are_bounded_in_bytes(tmp_path):
    manifest = write(tmp_path / "set", [(str(i), {"bin": b"x" * 3000}) for i in range(20)], shard_bytes=16 << 10)
    assert all(shard.bytes <= (16 << 10) + 1024 for shard in manifest.shards)
    assert manifest.samples == 20


def test_an_interrupted_build_continues_and_ends_the_same(tmp_path):
    write(tmp_path / "whole", samples())
    with pytest.raises(RuntimeError):
        write_part(tmp_path / "set", 23, interrupt)
    assert not [name for name in files(tmp_path / "set") if "part" in name or name == "manifest.json"]
    with ShardWriter(tmp_path / "set", **OPTIONS) as writer:
        stood = [writer.skip(key) or writer.add(key, members) for key, members in samples()]
    assert stood == [True] * 20 + [None] * 5
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_a_killed_build_continues(tmp_path):
    child = multiprocessing.get_context("fork").Process(target=write_and_die, args=(tmp_path / "set",))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(ShardError, match="no shard set"):
        ShardSet.open(tmp_path / "set")
    write(tmp_path / "whole", samples())
    write(tmp_path / "set", samples())
    assert files(tmp_path / "set") == files(tmp_path / "whole")


def test_a_continued_build_must_be_the_same_build(tmp_path):
    with pytest.raises(RuntimeError):
        write_part(tmp_path / "set", 15, interrupt)
    with pytest.raises(ShardError, match="other options"):
        ShardWriter(tmp_path / "set", **OPTIONS | {"split": "val"})
    with pytest.raises(ShardError, match="the source has changed"):
        write(tmp_path / "set", samples()[::-1])
    with pytest.raises(ShardError, match="more samples than the source gives now"):
        write(tmp_path / "set", samples()[:5])


def test_a_finished_set_is_not_written_over(tmp_path):
    write(tmp_path / "set", samples())
    with pytest.raises(ShardError, match="holds a finished shard set"):
        write(tmp_path / "set", samples())


def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch):
    writer = ShardWriter(tmp_path / "set", **OPTIONS)
    for key, members in samples()[:12]:
        writer.add(key, members)

    def full(data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer._tar, "_write", full)
    with pytest.raises(ShardError, match=r"No space left on device. 1 finished shards stand; free space .* continues"):
        writer.add("more", {"jpg": b"x"})
    assert not [name for name in files(tmp_path / "set") if "part" in name]
    monkeypatch.undo()
    write(tmp_path / "set", samples())
    assert len(ShardSet.open(tmp_path / "set")) == 25


def test_keys_become_file_names_and_stay_apart(tmp_path):
    keys = ["a.b/c", "a_b c", "../../etc/passwd", "ключ", "", "x" * 300, "nul\0byte", "c:\\d"]
    write(tmp_path / "set", [(key, {"txt": b""}) for key in keys])
    source = ShardSet.open(tmp_path / "set")
    names = [source.read(0, i).key for i in range(len(keys))]
    assert len(set(names)) == len(keys)
    assert names[0] == "a_b_c"
    assert names[3] == "ключ"
    assert all(name and len(name.encode()) <= MAX_KEY and not set(name) & set("./\\\0: ") for name in names)
    assert clean_key("x" * 300) != clean_key("x" * 301)


@pytest.mark.parametrize("members", [{}, {"JPG": b""}, {"../x": b""}, {".jpg": b""}])
def test_members_need_plain_extensions(tmp_path, members):
    with pytest.raises(ShardError, match="lower-case extensions"):
        ShardWriter(tmp_path / "set", **OPTIONS).add("key", members)


def test_a_key_names_one_sample(tmp_path):
    with pytest.raises(ShardError, match="came before"):
        write(tmp_path / "set", [("a", {"txt": b"1"}), ("a", {"txt": b"2"})])


def test_an_empty_set_is_an_error(tmp_path):
    with pytest.raises(ShardError, match="no sample was added"):
        write(tmp_path / "set", [])


def test_a_set_can_be_pickled_and_read_after(tmp_path):
    write(tmp_path / "set", samples())
    source = ShardSet.open(tmp_path / "set")
    first = source.read(0, 0)
    assert pickle.loads(pickle.dumps(source)).read(0, 0) == first


def test_few_tars_are_open_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.shards.MAX_OPEN", 3)
    write(tmp_path / "set", samples(50), samples_per_shard=5)
    source = ShardSet.open(tmp_path / "set")
    before = len(os.listdir("/proc/self/fd"))
    keys = [source.read(shard, 0).key for shard in [*range(10), *range(10)]]
    assert keys == [f"cat_{i * 5}_png" for i in range(10)] * 2
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 3  # a tar and its mapped index
    source.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a manifest"),
        ("[]", "must be a mapping"),
        ('{"format": "mmtok-shards-9", "kind": "images"}', "another version"),
        ('{"kind": "images", "shards": [{"name": "../x", "samples": 1}]}', "plain file name"),
        ('{"kind": "images", "shards": [{"name": "x", "samples": -1}]}', "negative"),
        ('{"kind": "images", "shards": [{"name": "x", "samples": 1}, {"name": "x", "samples": 1}]}', "repeat"),
        ('{"kind": "images", "shrads": []}', "Did you mean shards"),
        ('{"kind": "images"}', "lists no samples"),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, content, message):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ShardError, match=message):
        ShardSet.open(tmp_path)


def test_tars_without_a_manifest_are_to_be_indexed(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"")
    with pytest.raises(ShardError, match="mmtok shards index"):
        ShardSet.open(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda d: d[:100], lambda d: b"x" + d, lambda d: b"", lambda d: d[:40] + b"\xff" * 9]
)
def test_a_damaged_index_is_an_error_with_a_remedy(tmp_path, damage):
    write(tmp_path / "set", samples())
    index = tmp_path / "set" / "train-000000.idx"
    index.write_bytes(damage(index.read_bytes()))
    with pytest.raises(ShardError, match="mmtok shards index"):
        ShardSet.open(tmp_path / "set").read(0, 0)


def test_another_tar_in_its_place_is_refused(tmp_path):
    write(tmp_path / "set", samples())
    tar = tmp_path / "set" / "train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:-512])
    with pytest.raises(ShardError, match=r"train-000000.*has \d+ bytes, its index \d+"):
        ShardSet.open(tmp_path / "set").read(0, 0)


def test_the_fingerprint_follows_names_and_counts_only(tmp_path):
    one, other = write(tmp_path / "a", samples()), write(tmp_path / "b", samples(), licence="MIT")
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != write(tmp_path / "c", samples(24)).fingerprint
    assert Manifest.load(tmp_path / "b" / "manifest.json").licence == "MIT"
