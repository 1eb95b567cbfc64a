from __future__ import annotations

import multiprocessing
import os

import pytest

from datamodules.cache import ShardCache
from datamodules.shards import ShardError


def source(folder, name, content):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path.as_uri()


def test_equal_file_names_of_two_addresses_are_two_files(tmp_path):
    """Platform 3 trap 10 (WDS#471)."""
    cache = ShardCache(tmp_path / "cache")
    urls = [source(tmp_path, f"{name}/part_8.tar", name.encode()) for name in "xy"]
    assert [cache.fetch(url).read_bytes() for url in urls] == [b"x", b"y"]


def test_a_shard_is_fetched_once(tmp_path, monkeypatch):
    cache = ShardCache(tmp_path / "cache")
    url = source(tmp_path, "a.tar", b"x")
    first = cache.fetch(url)
    monkeypatch.setattr(ShardCache, "_download", None)
    assert cache.fetch(url) == first


def _fetch(folder, url, log):
    cache = ShardCache(folder)
    inner = cache._download

    def counted(*args):
        with open(log, "a") as file:
            file.write("x")
        inner(*args)

    cache._download = counted
    cache.fetch(url)


def test_the_processes_of_a_node_fetch_it_once(tmp_path):
    url = source(tmp_path, "a.tar", b"x" * 5_000_000)
    arguments = (tmp_path / "cache", url, tmp_path / "log")
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=_fetch, args=arguments) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert (tmp_path / "log").read_text() == "x"


def test_what_was_used_longest_ago_goes_first_and_open_files_stay_readable(tmp_path):
    cache = ShardCache(tmp_path / "cache", limit_bytes=250)
    paths = []
    for number in range(4):
        paths.append(cache.fetch(source(tmp_path, f"{number}.tar", bytes([number]) * 100)))
        os.utime(paths[-1], (number, number))
        if number == 0:
            held = paths[0].open("rb")
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert held.read() == b"\0" * 100


def test_what_came_is_what_the_manifest_says(tmp_path):
    cache = ShardCache(tmp_path / "cache")
    url = source(tmp_path, "a.tar", b"x")
    with pytest.raises(ShardError, match=r"1 bytes, .* the manifest says 2 bytes"):
        cache.fetch(url, size=2)
    with pytest.raises(ShardError, match="the manifest says sha256 00"):
        cache.fetch(url, size=1, sha256="00")
    assert not list((tmp_path / "cache").glob("*.tar"))
    assert not list((tmp_path / "cache").glob("*.part"))


def test_an_address_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("datamodules.cache.time.sleep", lambda seconds: None)
    with pytest.raises(ShardError, match=r"http://127.0.0.1:9/a.tar cannot be fetched"):
        ShardCache(tmp_path / "cache").fetch("http://127.0.0.1:9/a.tar")
    with pytest.raises((ShardError, FileNotFoundError)):
        ShardCache(tmp_path / "cache").fetch((tmp_path / "none.tar").as_uri())


def test_a_failing_pipe_leaves_nothing(tmp_path):
    cache = ShardCache(tmp_path / "cache", allow_pipe=True)
    with pytest.raises(ShardError, match="ended with status 3"):
        cache.fetch("pipe:echo half; exit 3")
    assert not list((tmp_path / "cache").glob("*.tar"))
