from __future__ import annotations

import pytest

from benchmarks.hostile import build, stream
from datamodules.indexing import index_tars
from datamodules.shards import ShardSet
from datamodules.verify import verify


@pytest.fixture
def hostile(tmp_path):
    build(tmp_path / "tars", tmp_path / "executed")
    yield tmp_path / "tars"
    assert not (tmp_path / "executed").exists()  # whatever a test did, no payload ran


def named(report):
    return {(one.shard, one.name): one.category for one in report.findings}


def test_hostile_tars_are_indexed_with_a_named_report(hostile):
    manifest, report = index_tars([str(hostile)])
    assert {shard.name for shard in manifest.shards} == {"good", "pickles", "pictures", "paths", "half", "header"}
    found = named(report)
    assert {shard for (shard, name), category in found.items() if category == "damaged" and not name} == {
        "half",
        "header",
        "noise",
        "zipped",
    }
    for name in ("../../escape.jpg", "/absolute.jpg", "symlink.jpg", "hardlink.jpg", "device.jpg", "twice.jpg"):
        assert found["paths", name] == "refused"
    assert not report.ok


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_samples_are_named_by_verify(hostile):
    index_tars([str(hostile)])
    found = named(verify(ShardSet.open(hostile)))
    for extension in ("pkl", "pickle", "pyd", "pth", "pt"):
        assert found["pickles", f"alone_{extension}.{extension}"] == "refused"
    assert found["pickles", "zipped.pkl.gz"] == "refused"
    for shard, name in (("pickles", "objects.npy"), ("pickles", "renamed.jpg"), ("pictures", "truncated.jpg")):
        assert found[shard, name] == "undecodable"
    assert found["pictures", "bomb.png"] == found["pictures", "big.png"] == "undecodable"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_run_survives_them_and_stops_above_the_configured_share(hostile):
    index_tars([str(hostile)])
    survived = stream(hostile, limit=0.5, updates=30)
    assert "480 samples delivered" in survived
    for key in ("pickles/alone_pth", "pictures/truncated", "pictures/bomb", "pickles/renamed"):
        assert key in survived
    assert stream(hostile, limit=0.01, updates=30).startswith("stopped: ")
