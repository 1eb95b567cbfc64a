"""A damaged sample in a real shard set: training goes on, says so, and refuses to resume over other shards."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from datamodules.shards import ShardSet
from datamodules.writer import ShardWriter
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train


@pytest.fixture
def shards(tmp_path):
    def build(name: str, count: int, **sizes):
        for split in ("train", "val"):
            with ShardWriter(tmp_path / name / split, kind="images", split=split, **sizes) as writer:
                for i in range(count):
                    file = io.BytesIO()
                    Image.new("RGB", (8, 8), (i, 2 * i, 99)).save(file, "PNG")
                    data = file.getvalue()
                    writer.add(f"{i:03d}", {"png": data[:40] if (split, i) == ("train", 3) else data})
        return tmp_path / name / "train"

    return build


def config(tiny, path, **blocks):
    data = {"name": "images", "shards": str(path), "image_size": 8, "workers": 0, "streams": 2}
    data |= {"batch_size": 8, "max_bad_fraction": 0.5}
    return tiny(data=data, **blocks)


def test_an_unreadable_sample_is_named_and_its_slot_filled(tiny, shards):
    lines: list[str] = []
    run = train(config(tiny, shards("a", 24)), say=lines.append)
    assert any(line.startswith("left out 003 of shard") for line in lines)
    assert "data/bad_share" in (run / "metrics.csv").read_text().partition("\n")[0]


def test_a_run_does_not_go_on_over_other_shards(tiny, shards):
    path = shards("b", 24)
    train(config(tiny, path), say=lambda line: None)
    for split in ("train", "val"):
        for file in (path.parent / split).iterdir():
            file.unlink()
    assert len(ShardSet.open(shards("b", 20))) == 20
    with pytest.raises(ValueError, match="no longer what the checkpoint was trained on"):
        train(config(tiny, path, trainer={"max_steps": 9}), say=lambda line: None)


def test_a_shard_that_is_deleted_in_the_middle_of_an_epoch_is_named_and_the_run_goes_on_when_it_is_back(
    tiny, shards, monkeypatch
):
    path = shards("c", 48, samples_per_shard=4)
    blocks = {"trainer": {"max_steps": 6, "val_every": 0}, "checkpoint": {"every_steps": 1}}
    settings = config(tiny, path, **blocks)
    settings = replace(settings, data=replace(settings.data, streams=1, shuffle=4, max_bad_fraction=0.1))
    update, tars = TokenizerModule._update, {tar: tar.read_bytes() for tar in path.glob("*.tar")}

    def deleting(self, *args):
        update(self, *args)
        if self.trainer.global_step == 2:
            for tar in tars:
                tar.unlink(missing_ok=True)

    lines: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(TokenizerModule, "_update", deleting)
        with pytest.raises(ValueError, match=r"can be read\. .* in train-\d+: .*No such file.*mmtok shards verify"):
            train(settings, say=lines.append)
    for tar, content in tars.items():
        tar.write_bytes(content)
    train(settings, say=lines.append)
    assert any(line.startswith("continuing") for line in lines)


def test_a_cache_that_cannot_keep_its_limit_is_told_once(tiny, shards, tmp_path):
    path = shards("d", 48, samples_per_shard=4)
    size = max(tar.stat().st_size for tar in path.glob("*.tar"))
    settings = config(tiny, path, trainer={"max_steps": 6, "val_every": 0})
    data = replace(settings.data, shards=path.as_uri(), val_shards=str(path.parent / "val"), shuffle=48)
    data = replace(data, cache_dir=str(tmp_path / "cache"), cache_gb=1.5 * size / 1e9)
    lines: list[str] = []
    run = train(replace(settings, data=data), say=lines.append)
    assert len([line for line in lines if "has grown past its limit" in line and "Raise data.cache_gb" in line]) == 1
    assert "speed/cache_overfull" in (run / "metrics.csv").read_text().partition("\n")[0]
