from __future__ import annotations

import functools
import http.server
import json
import threading
from pathlib import Path

import pytest

from datamodules.cache import ShardCache
from datamodules.indexing import index_tars
from datamodules.shards import ShardError, ShardSet
from datamodules.tarscan import scan_file
from datamodules.verify import verify
from datamodules.writer import ShardWriter


def tars(folder, shards=3, split="part", per_shard=4):
    """Tars of another tool: no manifest, no index."""
    with ShardWriter(folder, kind="text", split=split, samples_per_shard=per_shard) as writer:
        for i in range(shards * per_shard):
            writer.add(f"{split}{i:03d}", {"txt": f"{folder.name} {i}".encode(), "cls": b"0"})
    for path in folder.iterdir():
        if path.suffix != ".tar":
            path.unlink()
    return folder


def content(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*.tar")}


@pytest.fixture
def served(tmp_path):
    """(folder, address, list of requested paths)."""
    folder, requested = tmp_path / "www", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requested.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()
    server.server_close()


def test_existing_tars_become_a_set_and_stay_as_they_are(tmp_path):
    folder = tars(tmp_path / "a")
    before = content(folder)
    manifest, report = index_tars([f"{folder}/part-{{000000..000002}}.tar"], kind="text", split="train")
    assert report.ok
    assert content(folder) == before
    source = ShardSet.open(folder)
    assert (source.manifest, len(source)) == (manifest, 12)
    assert source.read(2, 3).members["txt"] == b"a 11"
    assert manifest.extensions == ("cls", "txt")
    assert verify(source).ok


def test_globs_folders_and_another_place_for_the_manifest(tmp_path):
    folder = tars(tmp_path / "a")
    for number, url in enumerate((f"{folder}/*.tar", str(folder))):
        out = tmp_path / f"out{number}"
        index_tars([url], out)
        assert len(ShardSet.open(out)) == 12
        assert ShardSet.open(out).read(0, 0).members["txt"] == b"a 0"
    assert not list(folder.glob("*.idx"))


def test_equal_names_in_two_folders_stay_two_shards(tmp_path):
    """Platform 3 trap 10 (WDS#471): x/part_8.tar and y/part_8.tar were one file."""
    folders = [tars(tmp_path / name, shards=1) for name in ("x", "y")]
    index_tars(map(str, folders), tmp_path / "out")
    source = ShardSet.open(tmp_path / "out")
    assert {source.read(shard, 0).members["txt"] for shard in (0, 1)} == {b"x 0", b"y 0"}


def test_indexing_takes_up_where_it_stopped(tmp_path, monkeypatch):
    folder = tars(tmp_path / "a")
    index_tars([f"{folder}/part-000000.tar"])
    scanned = []
    monkeypatch.setattr("datamodules.indexing.scan_file", lambda path: scanned.append(path.name) or scan_file(path))
    _, report = index_tars([str(folder)])
    assert (sorted(scanned), report.reused) == (["part-000001.tar", "part-000002.tar"], 1)
    tars(tmp_path / "b", per_shard=5)
    (tmp_path / "b" / "part-000001.tar").replace(folder / "part-000001.tar")  # its size differs: indexed again
    scanned.clear()
    _, report = index_tars([str(folder)])
    assert (scanned, report.reused, report.samples) == (["part-000001.tar"], 2, 13)


def test_hashes_come_when_asked_for(tmp_path):
    folder = tars(tmp_path / "a")
    assert {shard.sha256 for shard in index_tars([str(folder)], kind="text")[0].shards} == {None}
    manifest, _ = index_tars([str(folder)], sha256=True, kind="text")
    assert all(len(shard.sha256) == 64 for shard in manifest.shards)
    assert index_tars([str(folder)], kind="text")[0] == manifest
    tar = folder / "part-000001.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 1
    tar.write_bytes(data)
    report = verify(ShardSet.open(folder))
    assert [(one.shard, one.category) for one in report.findings] == [("part-000001", "mismatch")]
    assert verify(ShardSet.open(folder), sha256=False).ok


def test_indexing_a_built_set_again_keeps_what_its_manifest_says(tmp_path):
    about = {"kind": "text", "split": "val", "classes": ("a",), "licence": "MIT", "provenance": {"version": 3}}
    with ShardWriter(tmp_path / "set", **about) as writer:
        writer.add("a", {"txt": b"x"})
    (tmp_path / "set" / "val-000000.idx").unlink()
    manifest, _ = index_tars([str(tmp_path / "set")])
    assert manifest == writer.manifest
    assert verify(ShardSet.open(tmp_path / "set")).ok


def test_a_sidecar_that_disagrees_is_reported(tmp_path):
    """img2dataset's NAME_stats.json."""
    folder = tars(tmp_path / "a")
    (folder / "part-000000_stats.json").write_text(json.dumps({"count": 6, "successes": 4}))
    (folder / "part-000001_stats.json").write_text(json.dumps({"count": 6, "successes": 6}))
    _, report = index_tars([str(folder)])
    assert [(one.shard, one.category) for one in report.findings] == [("part-000001", "mismatch")]
    assert "counted 6 samples, the tar holds 4" in report.text()


def test_a_corrupt_tar_is_named_and_the_others_are_taken(tmp_path):
    folder = tars(tmp_path / "a")
    (folder / "part-000001.tar").write_bytes(b"no tar" * 200)
    manifest, report = index_tars([str(folder), f"{folder}/part-000009.tar"])
    assert [shard.name for shard in manifest.shards] == ["part-000000", "part-000002"]
    assert [(one.shard, one.category) for one in report.findings] == [
        ("part-000001", "damaged"),
        ("part-000009", "damaged"),
    ]
    assert not report.ok
    assert json.loads(json.dumps(report.plain()))["counts"] == {"damaged": 2}
    assert index_tars([str(folder)])[1].counts["damaged"] == 1  # said again when its index stands already


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (["pipe:cat x.tar"], "data.allow_pipe=true"),
        (["ftp://host/x.tar"], "no reader for 'ftp:'"),
        (["http://127.0.0.1:9/{0..1}.tar"], "-o FOLDER"),
        ([], "no tar to index"),
        (["x/{0..1.tar"], "Unbalanced"),
        (["/nowhere/a.tar", "/nowhere/a.tar"], "given twice"),
    ],
)
def test_addresses_that_cannot_be_are_refused(urls, message):
    with pytest.raises(ShardError, match=message):
        index_tars(urls)


def test_remote_tars_with_sidecars_are_counted_now_and_fetched_when_read(tmp_path, served):
    folder, address, requested = served
    tars(folder)
    for number in range(3):
        (folder / f"part-{number:06d}_stats.json").write_text(json.dumps({"successes": 4}))
    urls = [f"{address}/part-{{000000..000002}}.tar"]
    manifest, report = index_tars(urls, tmp_path / "out", cache=ShardCache(tmp_path / "cache"))
    assert (manifest.samples, report.ok) == (12, True)
    assert not [path for path in requested if path.endswith(".tar")]
    source = ShardSet.open(tmp_path / "out", cache_dir=tmp_path / "cache")
    assert source.read(1, 2).members["txt"] == b"www 6"
    assert source.read(1, 3).members["txt"] == b"www 7"
    assert [path for path in requested if path.endswith(".tar")] == ["/part-000001.tar"]


def test_remote_tars_without_sidecars_are_read_once(tmp_path, served):
    folder, address, _ = served
    tars(folder, shards=2)
    manifest, _ = index_tars(
        [f"{address}/part-{{000000..000001}}.tar"], tmp_path / "out", cache=ShardCache(tmp_path / "c")
    )
    assert [shard.samples for shard in manifest.shards] == [4, 4]
    assert all(shard.bytes for shard in manifest.shards)
    assert ShardSet.open(tmp_path / "out", cache_dir=tmp_path / "c").read(1, 0).members["txt"] == b"www 4"


def test_a_pipe_runs_only_where_it_is_permitted(tmp_path):
    folder = tars(tmp_path / "a", shards=1)
    url = f"pipe:cat {folder}/part-000000.tar"
    index_tars([url], tmp_path / "out", cache=ShardCache(tmp_path / "c", allow_pipe=True))
    allowed = ShardSet.open(tmp_path / "out", cache_dir=tmp_path / "c", allow_pipe=True)
    assert allowed.read(0, 1).members["txt"] == b"a 1"
    refused = ShardSet.open(tmp_path / "out", cache_dir=tmp_path / "c")
    with pytest.raises(ShardError, match="would run a shell command"):
        refused.read(0, 1)


def test_a_count_that_was_too_high_makes_bad_samples_not_a_crash(tmp_path, served):
    folder, address, _ = served
    tars(folder, shards=1)
    (folder / "part-000000_stats.json").write_text(json.dumps({"successes": 9}))
    index_tars([f"{address}/part-000000.tar"], tmp_path / "out", cache=ShardCache(tmp_path / "c"))
    source = ShardSet.open(tmp_path / "out", cache_dir=tmp_path / "c")
    with pytest.raises(ShardError, match="holds 4 samples, its manifest says 9"):
        source.read(0, 8)
    assert "says 9" in verify(source).text()


def test_verify_names_what_differs(tmp_path):
    folder = tars(tmp_path / "a")
    index_tars([str(folder)])
    (folder / "part-000000.idx").write_bytes((folder / "part-000001.idx").read_bytes())
    Path(folder / "part-000002.tar").unlink()
    report = verify(ShardSet.open(folder))
    assert {(one.shard, one.category) for one in report.findings} >= {
        ("part-000000", "mismatch"),
        ("part-000002", "damaged"),
    }


def test_a_set_of_images_whose_samples_hold_none_is_not_ok(tmp_path):
    with ShardWriter(tmp_path / "a", kind="images") as writer:
        writer.add("one", {"bmp": b"BM"})
    report = verify(ShardSet.open(tmp_path / "a"))
    assert not report.ok
    assert ("one", "undecodable") in [(one.name, one.category) for one in report.findings]
