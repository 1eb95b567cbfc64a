"""Files at addresses, from servers that are slow, cut connections, lie and refuse."""

from __future__ import annotations

import pytest

from datamodules import remote
from datamodules.remote import PART, MissingError, UnreachableError, beside, join, read, shown
from datamodules.shardindex import ShardError

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(remote, "PART", 1001)


def content(url, size=None):
    got = bytearray()
    for at, data in remote.parts(url, size):
        got[at:] = data
    return bytes(got)


def test_a_file_comes_in_ranges(web, small_parts):
    web.files["/a"] = CONTENT
    assert read(f"{web.url}/a") == content(f"{web.url}/a", len(CONTENT)) == CONTENT
    assert len(web.requests) == 22
    assert web.requests[1] == ("/a", "bytes=1001-2001")


def test_a_file_that_ends_where_a_range_does_is_whole(web, small_parts):
    web.files["/a"] = CONTENT[:2002]
    assert read(f"{web.url}/a") == CONTENT[:2002]


def test_a_server_that_ignores_ranges_sends_it_all_once(web, small_parts):
    web.ranges, web.files["/a"] = False, CONTENT
    assert read(f"{web.url}/a") == CONTENT
    assert len(web.requests) == 1


@pytest.mark.parametrize("fault", ["cut", "500", "503", "429", "408", "says more"])
def test_a_passing_failure_is_tried_again_from_where_it_stood(web, small_parts, waits, fault):
    """Also a body cut in the middle: what came before is not asked for again."""
    web.files["/a"] = CONTENT
    web.faults["/a"] = ["", "", fault, fault]
    assert content(f"{web.url}/a", len(CONTENT)) == CONTENT
    assert [header for _, header in web.requests].count("bytes=0-1000") == 1
    assert [header for _, header in web.requests].count("bytes=2002-3002") == 3
    assert len(waits) == 2


def test_a_server_that_cuts_every_long_answer_is_asked_for_less(web, monkeypatch, waits):
    """A range that is cut is lost whole: asked for as it was, it would never come."""
    monkeypatch.setattr(remote, "PART", 8001)
    monkeypatch.setattr(remote, "SMALLEST", 129)
    web.files["/a"], web.limit = CONTENT, 600
    assert content(f"{web.url}/a", len(CONTENT)) == CONTENT
    assert len(waits) == 2, "8001, 2001, and then 501 bytes at a time"


def test_a_server_that_sends_slowly_is_waited_for(web):
    web.files["/a"] = CONTENT
    web.faults["/a"] = ["slow"]
    assert read(f"{web.url}/a") == CONTENT


def test_a_server_that_hangs_is_given_up_and_asked_again(web, monkeypatch, waits):
    monkeypatch.setattr(remote, "TIMEOUT", 0.3)
    web.files["/a"] = CONTENT
    web.faults["/a"] = ["hangs"]
    assert read(f"{web.url}/a") == CONTENT
    assert len(waits) == 1


def test_waits_grow_are_scattered_and_heed_the_server(web, waits, monkeypatch):
    web.files["/a"] = CONTENT
    web.faults["/a"] = ["503"] * 99
    with pytest.raises(UnreachableError, match=r"http://127.*/a cannot be fetched: status 503.*8 attempts.*continues"):
        read(f"{web.url}/a")
    assert len(waits) == remote.ATTEMPTS - 1
    assert all(2**i / 2 <= wait <= 2**i for i, wait in enumerate(waits))
    assert len({wait / 2**i for i, wait in enumerate(waits)}) == len(waits)

    class BusyError(Exception):
        status = 429
        headers = {"Retry-After": "17"}  # noqa: RUF012

    assert remote._wait(1, BusyError()) == 17
    monkeypatch.setattr(remote, "LONGEST_WAIT", 5.0)
    assert remote._wait(1, BusyError()) == 5


@pytest.mark.parametrize(("status", "error"), [("404", MissingError), ("410", MissingError), ("400", ShardError)])
def test_a_lasting_failure_is_not_tried_again(web, waits, status, error):
    web.files["/a"] = CONTENT
    web.faults["/a"] = [status]
    with pytest.raises(error, match="http://127"):
        read(f"{web.url}/a")
    assert len(web.requests) == 1
    assert not waits


def test_what_may_not_be_read_says_where_credentials_come_from(web, waits):
    web.files["/a"] = CONTENT
    web.faults["/a"] = ["403"]
    with pytest.raises(ShardError, match=r"may not be read.*Credentials come from the environment"):
        read(f"{web.url}/a")


def test_nobody_listening_is_named(waits):
    """While it is waited for, and at the end."""
    with (
        pytest.warns(UserWarning, match=r"http://127.0.0.1:9/a.tar does not come \(.+\). It is asked for again."),
        pytest.raises(UnreachableError, match=r"http://127.0.0.1:9/a.tar cannot be fetched"),
    ):
        read("http://127.0.0.1:9/a.tar")


def test_a_longer_file_than_the_manifest_says_is_noticed(web, small_parts):
    web.files["/a"] = CONTENT
    for size in (500, 1001, 2002, 2500):
        assert len(content(f"{web.url}/a", size)) == size + 1


def test_a_signed_address_reaches_the_server_as_it_is_and_is_not_shown(web):
    web.files["/a b"] = web.files["/a%20b"] = CONTENT
    assert read(f"{web.url}/a%20b?X-Signature=a%2Fb") == CONTENT
    with pytest.raises(ShardError) as caught:
        read(f"{web.url}/none?X-Signature=secret")
    assert "secret" not in str(caught.value)
    assert shown("https://name:word@host/a?key=secret") == "https://host/a?..."
    assert shown("data/a") == "data/a"


def test_s3_is_read_with_what_the_environment_says(s3, small_parts):
    s3.put_object(Bucket="data", Key="deep/a.tar", Body=CONTENT)
    assert read("s3://data/deep/a.tar") == content("s3://data/deep/a.tar", len(CONTENT)) == CONTENT
    assert len(content("s3://data/deep/a.tar", 2002)) == 2003


def test_s3_names_what_is_missing(s3, waits):
    for url in ("s3://data/none.tar", "s3://nowhere/none.tar"):
        with pytest.raises(MissingError, match=f"{url} does not exist"):
            read(url)
    assert not waits


def test_a_scheme_without_its_package_says_what_to_install(monkeypatch):
    import fsspec

    def missing(scheme, **options):
        raise ImportError(f"Please install {scheme}fs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(ShardError, match=r"s3://data/a: 's3:' needs .* 's3fs'.*pip install 'mmtok\[remote\]'"):
        read("s3://data/a")
    with pytest.raises(ShardError, match="pip install gcsfs"):
        read("gs://data/a")


def test_addresses_that_nobody_reads_are_refused():
    with pytest.raises(ShardError, match=r"no reader for 'ftp:'. Known: s3, http"):
        read("ftp://host/a")
    with pytest.raises(ShardError, match=r"would run a shell command.*data.allow_pipe=true"):
        read("pipe:cat a")


def test_neighbours_of_addresses():
    assert join("s3://data/set/", "a.tar") == "s3://data/set/a.tar"
    assert join("https://h/set?key=1", "a.tar") == "https://h/set/a.tar?key=1"
    assert beside("s3://data/set/train", "val") == "s3://data/set/val"
    assert beside("sets/train", "val") == "sets/val"


def test_no_whole_tar_ends_where_a_range_does():
    assert all(PART * count % 512 for count in range(1, 500))
