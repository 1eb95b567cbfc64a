"""The node's cache: one fetch, whole files, bounded, nothing taken from a reader; whatever dies in between."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import multiprocessing
import os
import signal
import time

import pytest

from datamodules.cache import CacheError, ShardCache
from datamodules.remote import UnreachableError
from datamodules.shardindex import ShardError

FORK = multiprocessing.get_context("fork")


def source(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.as_uri()


def together(count, target, *arguments):
    children = [FORK.Process(target=target, args=arguments) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0] * count


def test_equal_file_names_of_two_addresses_are_two_files(tmp_path):
    """Platform 3 trap 10 (WDS#471)."""
    cache = ShardCache(tmp_path / "cache")
    urls = [source(tmp_path, f"{name}/part_8.tar", name.encode()) for name in "xy"]
    assert [cache.fetch(url).read_bytes() for url in urls] == [b"x", b"y"]


def test_a_shard_is_fetched_once(tmp_path, web):
    cache = ShardCache(tmp_path)
    web.files["/a.tar"] = b"x"
    assert cache.fetch(f"{web.url}/a.tar") == cache.fetch(f"{web.url}/a.tar")
    assert len(web.requests) == 1
    counted = cache.figures.take()
    assert (counted["cache_misses"], counted["cache_hits"], counted["fetched_mb"]) == (1, 1, 1e-6)
    assert not cache.figures.take()


def test_the_processes_of_a_node_fetch_it_once(tmp_path, web):
    web.files["/a.tar"] = b"x" * 5_000_000
    web.faults["/a.tar"] = ["slow"]
    together(4, ShardCache(tmp_path).fetch, f"{web.url}/a.tar")
    assert len(web.requests) == 1


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = ShardCache(tmp_path / "cache", limit_bytes=250)
    paths = []
    for number in range(4):
        paths.append(cache.fetch(source(tmp_path, f"{number}.tar", bytes([number]) * 100)))
        os.utime(paths[-1], (number, number))
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert cache.figures.take()["cache_evictions"] == 2
    assert len(list((tmp_path / "cache").iterdir())) == 4  # a tar and its lock each


def test_a_shard_that_is_read_is_not_dropped_until_its_reader_is_done(tmp_path):
    cache = ShardCache(tmp_path / "cache", limit_bytes=250)
    held, descriptor = cache.lease(source(tmp_path, "held.tar", b"h" * 100))
    os.utime(held, (0, 0))
    others = [cache.fetch(source(tmp_path, f"{i}.tar", b"x" * 100)) for i in range(3)]
    assert held.exists()
    assert sum(path.exists() for path in others) == 1
    os.close(descriptor)
    os.utime(held, (0, 0))
    cache.fetch(source(tmp_path, "last.tar", b"x" * 100))
    assert not held.exists()


def test_a_cache_whose_shards_are_all_in_use_grows_past_its_limit_and_counts_it(tmp_path):
    cache = ShardCache(tmp_path / "cache", limit_bytes=250)
    held = [cache.lease(source(tmp_path, f"{i}.tar", b"x" * 100), 100) for i in range(2)]
    assert "cache_overfull" not in cache.figures.take()
    held.append(cache.lease(source(tmp_path, "2.tar", b"x" * 100), 100))
    assert all(path.exists() for path, _ in held)
    assert cache.figures.take()["cache_overfull"] == 1
    for _, descriptor in held:
        os.close(descriptor)


def test_what_others_fetch_takes_room_already(tmp_path, web):
    """The limit holds over all processes of a node, though each makes room for its own shard alone."""
    limit, size = 2500, 1000
    for i in range(6):
        web.files[f"/{i}.tar"], web.faults[f"/{i}.tar"] = bytes([i]) * size, ["slow"]
    cache = ShardCache(tmp_path / "cache", limit_bytes=limit)
    for i in range(2):
        cache.fetch(f"{web.url}/{i}.tar", size)
    children = [FORK.Process(target=cache.fetch, args=(f"{web.url}/{i}.tar", size)) for i in (2, 3)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_a_tar_is_opened_for_writing_where_it_is_dropped(tmp_path, monkeypatch):
    """NFS refuses an exclusive lock of a file that was opened for reading."""
    flock = fcntl.flock

    def as_on_nfs(file, how):
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        if how & fcntl.LOCK_EX and mode == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", as_on_nfs)
    cache = ShardCache(tmp_path / "cache", limit_bytes=150)
    for i in range(3):
        path = cache.fetch(source(tmp_path, f"{i}.tar", b"x" * 100))
    assert [*(tmp_path / "cache").glob("*.tar")] == [path]


def _hold_for_ever(folder, url, ready):
    ShardCache(folder).lease(url)
    ready.set()
    time.sleep(60)


def test_a_killed_reader_pins_nothing(tmp_path):
    url, ready = source(tmp_path, "a.tar", b"x" * 100), FORK.Event()
    child = FORK.Process(target=_hold_for_ever, args=(tmp_path / "cache", url, ready))
    child.start()
    assert ready.wait(20)
    cache = ShardCache(tmp_path / "cache", limit_bytes=100)
    assert not cache.make_room(100)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert cache.make_room(100)


def test_a_killed_fetcher_leaves_nothing_that_is_taken_for_whole(tmp_path, web):
    web.files["/a.tar"] = bytes(range(256)) * 100
    web.faults["/a.tar"] = ["hangs"]
    cache = ShardCache(tmp_path)
    child = FORK.Process(target=cache.fetch, args=(f"{web.url}/a.tar",))
    child.start()
    while not list(tmp_path.glob("*.part")):
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob("*.tar"))
    web.files["/b.tar"] = b"b"
    cache.fetch(f"{web.url}/b.tar")  # whoever fetches next clears it away
    assert not list(tmp_path.glob("*.part"))
    assert cache.fetch(f"{web.url}/a.tar").read_bytes() == web.files["/a.tar"]


def test_half_a_file_that_a_disk_kept_is_fetched_again(tmp_path, web):
    web.files["/a.tar"] = b"x" * 100
    cache = ShardCache(tmp_path)
    cache.fetch(f"{web.url}/a.tar", 100).write_bytes(b"x" * 50)
    assert cache.fetch(f"{web.url}/a.tar", 100).read_bytes() == b"x" * 100


def test_a_damaged_download_is_fetched_again_once_then_refused_by_name(tmp_path, web):
    content = b"x" * 100
    web.files["/a.tar"], digest = content, hashlib.sha256(content).hexdigest()
    web.faults["/a.tar"] = ["damaged"]
    cache = ShardCache(tmp_path)
    assert cache.fetch(f"{web.url}/a.tar", 100, digest).read_bytes() == content
    assert len(web.requests) == 2
    web.faults["/a.tar"] = ["damaged"] * 9
    with pytest.raises(
        ShardError, match=r"/a.tar came twice as 100 bytes, .*the manifest says sha256 00.*index the set"
    ):
        cache.fetch(f"{web.url}/a.tar", 100, "00")
    assert len(web.requests) == 4
    assert len(list(tmp_path.glob("*.tar"))) == 1
    assert not list(tmp_path.glob("*.part"))


def test_a_file_of_another_length_is_refused(tmp_path, web):
    web.files["/a.tar"] = b"x" * 200
    cache = ShardCache(tmp_path)
    with pytest.raises(ShardError, match=r"came twice as more than 150 bytes.*the manifest says 150 bytes"):
        cache.fetch(f"{web.url}/a.tar", 150)
    with pytest.raises(ShardError, match=r"came twice as 200 bytes.*the manifest says 250 bytes"):
        cache.fetch(f"{web.url}/a.tar", 250)
    web.faults["/a.tar"] = ["says less"] * 2
    web.ranges = False  # with ranges the rest would be asked for
    with pytest.raises(ShardError, match="came twice as 100 bytes"):
        cache.fetch(f"{web.url}/a.tar", 200)


def test_a_shard_replaced_at_its_address_is_fetched_again(tmp_path, web):
    cache, hashes = ShardCache(tmp_path), []
    for content in (b"old", b"new"):
        web.files["/a.tar"] = content
        hashes.append(hashlib.sha256(content).hexdigest())
        assert cache.fetch(f"{web.url}/a.tar", 3, hashes[-1]).read_bytes() == content


def test_a_full_disk_costs_what_nobody_reads_and_is_named(tmp_path, web):
    web.files["/a.tar"] = web.files["/b.tar"] = b"x" * 100
    cache = ShardCache(tmp_path)
    held, descriptor = cache.lease(f"{web.url}/a.tar")
    # A device that is always full takes the place of the new file.
    cache.path(f"{web.url}/b.tar", 100).with_suffix(".part").symlink_to("/dev/full")
    with pytest.raises(CacheError, match=r"is full \(No space left on device\).*set data.cache_dir"):
        cache.fetch(f"{web.url}/b.tar", 100)
    assert held.exists()
    os.close(descriptor)
    cache.path(f"{web.url}/b.tar", 100).with_suffix(".part").symlink_to("/dev/full")
    with pytest.raises(CacheError, match="is full"):
        cache.fetch(f"{web.url}/b.tar", 100)
    assert not held.exists()


def test_a_folder_that_is_no_folder_is_named(tmp_path, web):
    """Root, who runs the tests in containers, may write to a read-only folder: a file stands in its place."""
    web.files["/a.tar"] = b"x"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError, match=r"file/cache, cannot be written \(Not a directory\).*set data.cache_dir"):
        ShardCache(tmp_path / "file/cache").fetch(f"{web.url}/a.tar")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named_and_gives_what_it_has(tmp_path, web):
    web.files["/a.tar"] = web.files["/b.tar"] = b"x"
    kept = ShardCache(tmp_path).fetch(f"{web.url}/a.tar")
    tmp_path.chmod(0o500)
    try:
        assert ShardCache(tmp_path).fetch(f"{web.url}/a.tar") == kept
        with pytest.raises(CacheError, match="cannot be written"):
            ShardCache(tmp_path).fetch(f"{web.url}/b.tar")
    finally:
        tmp_path.chmod(0o700)


def test_a_shard_larger_than_the_cache_is_refused_before_it_is_fetched(tmp_path, web):
    web.files["/a.tar"] = b"x" * 100
    with pytest.raises(CacheError, match=r"may hold 50 bytes, and one shard has 100. Raise data.cache_gb"):
        ShardCache(tmp_path, limit_bytes=50).fetch(f"{web.url}/a.tar", 100)
    assert not web.requests


def test_an_address_that_does_not_answer_stops_rather_than_counts_as_a_bad_sample(tmp_path, waits):
    with pytest.raises(UnreachableError) as caught:
        ShardCache(tmp_path).fetch("http://127.0.0.1:9/a.tar")
    assert not isinstance(caught.value, ShardError)
    with pytest.raises(ShardError, match="does not exist"):
        ShardCache(tmp_path).fetch((tmp_path / "none.tar").as_uri())


def test_prefetching_skips_what_another_process_fetches(tmp_path, web):
    web.files["/a.tar"] = b"x"
    cache = ShardCache(tmp_path)
    with cache._lock(cache.path(f"{web.url}/a.tar")):
        cache.prefetch(f"{web.url}/a.tar")
    assert not web.requests
    cache.prefetch(f"{web.url}/a.tar")
    cache.prefetch(f"{web.url}/a.tar")
    assert len(web.requests) == 1


def test_a_failing_pipe_leaves_nothing(tmp_path):
    cache = ShardCache(tmp_path / "cache", allow_pipe=True)
    with pytest.raises(ShardError, match="ended with status 3"):
        cache.fetch("pipe:echo half; exit 3")
    assert not list((tmp_path / "cache").glob("*.tar"))
