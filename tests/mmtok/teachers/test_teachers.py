"""Features of a teacher beside every signal, and what is refused."""

import io

import numpy as np
import pytest
import torch

from datamodules.decode import DecodeError, decode
from datamodules.images import Images, ImagesConfig
from datamodules.reader import SlotSample
from datamodules.shards import ShardSet
from mmtok.cli import main
from mmtok.schema import ConfigError
from mmtok.teachers import Teacher, open_teacher, teachers
from mmtok.teachers.pictures import square
from mmtok.teachers.write import write_features
from tests.mmtok.export import tiny


class Brightness(Teacher):
    """Mean and number of bytes."""

    name = "brightness"
    content = ("png",)

    def features(self, signals):
        return [np.array([square(data, 4).float().mean(), len(data)], np.float32) for _, data in signals]

    def about(self):
        return {"about": "mean of the pixels, bytes"}


@pytest.fixture
def source(tmp_path):
    return tiny.pictures(tmp_path / "source", 6)


def test_features_stand_beside_what_was_there(source, tmp_path):
    manifest, left_out = write_features(ShardSet.open(source), tmp_path / "out", Brightness())
    assert (manifest.samples, left_out) == (6, [])
    assert manifest.provenance["features"] == {"brightness": {"about": "mean of the pixels, bytes"}}
    before, after = ShardSet.open(source), ShardSet.open(tmp_path / "out")
    found = {}
    for shard, count in enumerate(after.counts):
        for number in range(count):
            found[after.read(shard, number).key] = after.read(shard, number).members
    for shard, count in enumerate(before.counts):
        for number in range(count):
            one = before.read(shard, number)
            members = dict(found[one.key])
            features = decode("npy", members.pop("brightness.npy"))
            assert members == dict(one.members)
            torch.testing.assert_close(
                float(features[0]), float(square(members["png"], 4).float().mean()), rtol=1e-2, atol=0.1
            )


def test_they_come_with_the_batches_of_pictures(source, tmp_path):
    write_features(ShardSet.open(source), tmp_path / "out", Brightness())
    config = {"image_size": 16, "batch_size": 3, "workers": 0, "streams": 1, "val_shards": str(tmp_path / "out")}
    data = Images(ImagesConfig(shards=str(tmp_path / "out"), teacher="brightness", **config))
    data.plan(seed=0, accumulate=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["teacher"].shape == (3, 2)
    assert batch["teacher"].dtype == torch.float32
    with pytest.raises(ConfigError, match=r"holds no efflite0.npy.*mmtok shards features"):
        Images(ImagesConfig(shards=str(tmp_path / "out"), teacher="efflite0", **config)).plan(seed=0, accumulate=1)


def test_places_of_a_teacher_need_pictures_that_stay_where_they_are(tmp_path):
    class Places(Brightness):
        def features(self, signals):
            return [np.zeros((2, 3, 3), np.float32) for _ in signals]

    write_features(ShardSet.open(tiny.pictures(tmp_path / "source", 3)), tmp_path / "out", Places())
    config = {
        "shards": str(tmp_path / "out"),
        "val_shards": str(tmp_path / "out"),
        "image_size": 16,
        "workers": 0,
        "streams": 1,
    }
    still = Images(ImagesConfig(teacher="brightness", flip=False, crop="center", batch_size=2, **config))
    assert next(iter(still.train_dataloader()))["teacher"].shape == (2, 2, 3, 3)
    with pytest.raises(ConfigError, match=r"data.flip=false data.crop=center"):
        next(iter(Images(ImagesConfig(teacher="brightness", batch_size=2, **config)).train_dataloader()))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (None, "no brightness.npy among"),
        (np.ones((2, 2)), r"float64 of shape \(2, 2\), not numbers of 1 axis or 3 axes"),
        (np.ones(2, np.int64), "is int64"),
        (np.array([1.0, np.nan]), "not finite"),
    ],
)
def test_a_picture_without_usable_features_is_a_bad_sample(features, said):
    data = Images(ImagesConfig(shards="none", teacher="brightness", image_size=16, batch_size=2))
    with pytest.raises(DecodeError, match=said):
        data.item(taught(features), training=False)


def test_features_of_two_teachers_in_one_batch_are_refused():
    data = Images(ImagesConfig(shards="none", teacher="brightness", image_size=16, batch_size=2))
    items = [data.item(taught(np.ones(count, np.float16), key), training=False) for count, key in ((2, "a"), (3, "b"))]
    with pytest.raises(ConfigError, match=r"has shape \(2,\) in sample a, and \(3,\) in b: of two teachers"):
        data.batch(items)


def taught(features, key="a"):
    """A picture with features beside it."""
    members = {"png": tiny.png(16, 16, 0)}
    if features is not None:
        buffer = io.BytesIO()
        np.save(buffer, features)
        members["brightness.npy"] = buffer.getvalue()
    return SlotSample(key, members, 0, 0)


def test_a_sample_that_cannot_be_read_is_left_out_by_name(tmp_path):
    source = tiny.pictures(tmp_path / "source", 3, bad={"png": b"no picture"}, bare={"txt": b"a text"})
    manifest, left_out = write_features(ShardSet.open(source), tmp_path / "out", Brightness())
    assert manifest.samples == 3
    assert sorted(line.split(":")[0] for line in left_out) == ["bad", "bare"]


def test_samples_that_hold_nothing_for_the_teacher_may_come_together(tmp_path, monkeypatch):
    class Stacking(Brightness):
        def features(self, signals):
            return list(np.stack(super().features(signals)))  # as networks do, and nothing cannot be stacked

    monkeypatch.setattr("mmtok.teachers.write.BATCH", 1)
    source = tiny.pictures(tmp_path / "source", 3, bare={"txt": b"a text"})
    manifest, left_out = write_features(ShardSet.open(source), tmp_path / "out", Stacking())
    assert (manifest.samples, len(left_out)) == (3, 1)


def test_a_copy_that_was_killed_is_continued(source, tmp_path, monkeypatch):
    monkeypatch.setattr("mmtok.teachers.write.BATCH", 2)
    whole, _ = write_features(ShardSet.open(source), tmp_path / "whole", Brightness())

    class Killed(Brightness):
        calls = 0

        def features(self, signals):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return super().features(signals)

    with pytest.raises(KeyboardInterrupt):
        write_features(ShardSet.open(source), tmp_path / "out", Killed())
    again, _ = write_features(ShardSet.open(source), tmp_path / "out", Brightness())
    assert [one.sha256 for one in again.shards] == [one.sha256 for one in whole.shards]


def test_the_verb_writes_cepstra_and_says_what_to_train_on(tmp_path, capsys):
    source = tiny.sounds(tmp_path / "source", 3)
    assert main(["shards", "features", source, "-o", str(tmp_path / "out"), "--teacher", "mfcc"]) == 0
    assert "3 samples with mfcc.npy" in capsys.readouterr().out
    members = ShardSet.open(tmp_path / "out").read(0, 0).members
    assert decode("npy", members["mfcc.npy"]).shape == (39, 2)  # 200 samples at 8 kHz, 160 a frame
    assert ShardSet.open(tmp_path / "out").manifest.provenance["features"]["mfcc"]["rate"] == 50.0


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("eflite0", "there is no teacher 'eflite0'. Did you mean efflite0?"),
        ("dinov2", "needs the folder of its weights: dinov2:FOLDER"),
        ("dinov2:/nowhere", "there is no folder /nowhere"),
        ("mfcc:/tmp", "leave ':/tmp' out"),
        ("mfcc", "holds png, txt; teacher 'mfcc' looks at"),
    ],
)
def test_what_is_no_teacher_of_a_set_is_refused(source, tmp_path, capsys, teacher, said):
    assert main(["shards", "features", source, "-o", str(tmp_path / "out"), "--teacher", teacher]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_features_that_are_not_finite_are_refused(source, tmp_path):
    class Broken(Brightness):
        def features(self, signals):
            return [np.array([np.nan], np.float32) for _ in signals]

    with pytest.raises(ValueError, match="not finite in 16 bits"):
        write_features(ShardSet.open(source), tmp_path / "out", Broken())


def test_a_picture_of_no_square_shape_is_cut_in_its_middle():
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(wide).save(file, "png")
    assert (square(file.getvalue(), 4) == 200).all()
    with pytest.raises(DecodeError):
        square(b"no picture", 4)


def test_every_teacher_says_what_it_looks_at():
    for name, make in teachers.items():
        assert make.name == name
        assert make.content
    assert isinstance(open_teacher("mfcc"), Teacher)
