"""Sources to shards: splits, bad files, re-encoding, names."""

import io
import json
import zipfile
from functools import partial

import numpy as np
import pytest
from PIL import Image

import datamodules.build.datasets as datasets
from datamodules.build import Entry, Source, build_shards
from datamodules.build.builder import BuildOptions, assign_splits, build
from datamodules.build.files import split_depth
from datamodules.build.fixture import FIXTURES, FOLDER
from datamodules.build.pictures import check, on_white, open_picture
from datamodules.shards import ShardSet
from mmtok.schema import ConfigError


def encoded(seed=0, size=(32, 24), mode="RGB", kind="JPEG"):
    shape = size[::-1] + ((len(mode),) if len(mode) > 1 else ())
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise, mode).save(buffer, kind)
    return buffer.getvalue()


def samples_of(folder):
    shards = ShardSet.open(folder)
    return [shards.read(s, i) for s, count in enumerate(shards.counts) for i in range(count)]


def labels_of(folder):
    classes = ShardSet.open(folder).manifest.classes
    return {sample.key: classes[int(sample.members["cls"])] for sample in samples_of(folder)}


@pytest.fixture
def pets(tmp_path):
    """Ten cats and ten dogs, one file cut short, one that is no picture, captions, and what a Mac leaves behind."""
    root = tmp_path / "pets"
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for i in range(10):
            (root / label / f"{i}.jpg").write_bytes(encoded(i))
    (root / "cat" / "cut.jpg").write_bytes(encoded(50, size=(200, 200))[:-2000])
    (root / "dog" / "page.png").write_text("<html>404</html>")
    (root / "cat" / "3.txt").write_text("a cat")
    (root / "cat" / ".DS_Store").write_bytes(b"")
    (root / "cat" / "._3.jpg").write_bytes(b"")
    return root


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_a_folder_becomes_sets_with_its_files_untouched_and_its_folders_as_classes(pets, tmp_path):
    report = build_shards(str(pets), tmp_path / "out")
    assert set(report.sets) == {"train", "val"}
    assert report.samples == 20
    labels = labels_of(tmp_path / "out/train") | labels_of(tmp_path / "out/val")
    assert labels["cat_3"] == "cat"
    assert labels["dog_9"] == "dog"
    members = {s.key: s.members for name in ("train", "val") for s in samples_of(tmp_path / "out" / name)}
    assert members["cat_3"] == {"jpg": encoded(3), "txt": b"a cat", "cls": b"0"}


def test_bad_files_are_counted_and_named_but_do_not_end_a_build(pets, tmp_path):
    report = build_shards(str(pets), tmp_path / "out")
    assert sorted(key for key, _ in report.bad) == ["cat/cut", "dog/page"]
    assert set(json.loads((tmp_path / "out/left_out.json").read_text())) == {"cat/cut", "dog/page"}
    assert "cat/cut" in str(report)


def test_a_build_of_nothing_but_bad_files_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"none")
    with pytest.raises(ValueError, match="none of the 1 pictures could be used"):
        build_shards(str(tmp_path / "in"), tmp_path / "out")


def test_a_set_whose_every_picture_is_bad_is_named_with_the_first(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "in" / split / "cat").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "in/train/cat/good.png")
    (tmp_path / "in/val/cat/bad.png").write_bytes(b"none")
    with pytest.raises(ValueError, match=r"none of the 1 pictures could be used for the set 'val'.*bad: no picture"):
        build_shards(str(tmp_path / "in"), tmp_path / "out")


def test_a_zip_gives_what_its_folder_gives(pets, tmp_path):
    build_shards(str(pets), tmp_path / "a")
    build_shards(str(zipped(pets, tmp_path / "pets.zip")), tmp_path / "b")
    pictures = [
        sorted(s.members["jpg"] for name in ("train", "val") for s in samples_of(tmp_path / out / name)) for out in "ab"
    ]
    assert pictures[0] == pictures[1]
    provenance = ShardSet.open(tmp_path / "b/train").manifest.provenance
    assert provenance["name"] == "pets.zip"
    assert len(provenance["sha256"]) == 64


def test_the_same_build_gives_the_same_bytes_whatever_the_workers(pets, tmp_path):
    digests = []
    for workers in (1, 4):
        report = build_shards(str(pets), tmp_path / str(workers), workers=workers, tile=8)
        digests.append([shard.sha256 for manifest in report.sets.values() for shard in manifest.shards])
    assert digests[0] == digests[1]


def test_folders_named_as_splits_are_the_sets(tmp_path):
    for path in ("data/train/cat/1.jpg", "data/train/dog/1.jpg", "data/validation/cat/1.jpg", "data/test/dog/1.jpg"):
        file = tmp_path / "in" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded())
    report = build_shards(str(tmp_path / "in"), tmp_path / "out")
    assert {name: manifest.samples for name, manifest in report.sets.items()} == {"train": 2, "val": 1, "test": 1}
    assert set(labels_of(tmp_path / "out/train").values()) == {"cat", "dog"}


def test_a_class_called_test_is_no_split_where_others_are_none():
    assert split_depth([("test",), ("cat",)]) is None


def many(groups=40, tiles=5):
    return [Entry(f"{g}/{t}", f"photo{g}", partial(dict, jpg=encoded(g))) for g in range(groups) for t in range(tiles)]


@pytest.mark.parametrize("fraction", [None, 0.01, 0.3, 0.99])
def test_a_photograph_is_never_divided_between_sets(fraction):
    entries = many()
    splits = assign_splits(entries, fraction)
    sides = {split: {e.group for e, s in zip(entries, splits, strict=True) if s == split} for split in ("train", "val")}
    assert sides["train"]
    assert sides["val"]
    assert not sides["train"] & sides["val"]


def test_a_photograph_keeps_its_set_when_others_join():
    few, more = many(groups=20), many(groups=60)
    before = dict(zip((e.key for e in few), assign_splits(few, 0.2), strict=True))
    after = dict(zip((e.key for e in more), assign_splits(more, 0.2), strict=True))
    assert before == {key: after[key] for key in before}


def test_tiles_of_a_photograph_stay_in_one_set_and_cover_it(tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(12):
        (tmp_path / "in" / f"{i}.jpg").write_bytes(encoded(i, size=(70, 33)))
    build_shards(str(tmp_path / "in"), tmp_path / "out", tile=16, val_fraction=0.3)
    photographs = [{s.key.split("-")[0] for s in samples_of(tmp_path / "out" / name)} for name in ("train", "val")]
    assert not photographs[0] & photographs[1]
    keys = [s.key for name in ("train", "val") for s in samples_of(tmp_path / "out" / name)]
    assert len(keys) == 12 * 8
    sample = samples_of(tmp_path / "out/train")[0]
    assert open_picture(sample.members["jpg"]).size == (16, 16)


def test_size_makes_pictures_smaller_and_never_larger(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/large.png").write_bytes(encoded(size=(80, 40), kind="PNG"))
    (tmp_path / "in/small.png").write_bytes(encoded(size=(12, 10), kind="PNG"))
    build_shards(str(tmp_path / "in"), tmp_path / "out", size=20, val_fraction=0.0)
    sizes = {s.key: open_picture(s.members["png"]).size for s in samples_of(tmp_path / "out/train")}
    assert sizes == {"large": (40, 20), "small": (12, 10)}


def test_formats_that_training_does_not_decode_are_written_as_png(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.bmp").write_bytes(encoded(7, kind="BMP"))
    build_shards(str(tmp_path / "in"), tmp_path / "out")
    (sample,) = samples_of(tmp_path / "out/train")
    np.testing.assert_array_equal(open_picture(sample.members["png"]), open_picture(encoded(7, kind="BMP")))


def test_a_picture_is_what_its_content_says_not_its_name():
    with pytest.raises(OSError, match="no picture in any format"):
        check(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_transparency_is_composited_on_white():
    hidden = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    assert on_white(hidden).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_clipped():
    grey = Image.fromarray(np.full((2, 2), 0x8000, dtype=np.uint16))
    assert on_white(grey).getpixel((0, 0)) == 128


def test_limit_takes_some_of_every_class(pets, tmp_path):
    report = build_shards(str(pets), tmp_path / "out", limit=12)
    assert report.samples + len(report.bad) == 12
    assert len(set(labels_of(tmp_path / "out/train").values())) == 2


def test_a_build_that_was_killed_continues(pets, tmp_path):
    """The writer keeps finished shards; a second attempt must come to the bytes of an undisturbed one."""

    class Killed(Source):
        def __init__(self, after):
            super().__init__({"kind": "folder", "name": "x", "licence": "none"})
            self.after = after

        def entries(self):
            return [Entry(f"{i:03d}", f"{i:03d}", partial(self._read, i)) for i in range(60)]

        def _read(self, i):
            self.after -= 1
            if self.after < 0:
                raise MemoryError("killed")
            return {"jpg": encoded(i, size=(256, 256))}

    options = BuildOptions(shard_mb=1, val_fraction=0.0, workers=1)
    with pytest.raises(MemoryError):
        build(Killed(45), tmp_path / "a", options)
    again = build(Killed(1000), tmp_path / "a", options).sets["train"]
    whole = build(Killed(1000), tmp_path / "b", options).sets["train"]
    assert len(whole.shards) > 2
    assert again == whole


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("endless-sky", "Did you mean debian:endless-sky"),
        ("fixtur", "Did you mean fixture"),
        ("fixture:fashion", "Did you mean fashion-mnist"),
        ("torchvision:cifar1", "Did you mean cifar10"),
        ("debian:NO", "cannot be the name of a Debian package"),
        ("no/such/folder", "there is no folder or file"),
    ],
)
def test_an_unknown_source_names_the_nearest(source, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        build_shards(source, tmp_path / "out")


def test_unknown_and_impossible_options_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean tile"):
        build_shards("fixture", tmp_path / "out", tiles=3)
    with pytest.raises(ValueError, match="no room for tile=96"):
        build_shards("fixture", tmp_path / "out", size=64, tile=96)


def test_a_damaged_zip_is_named(tmp_path):
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(ValueError, match=r"cut\.zip is no zip file"):
        build_shards(str(tmp_path / "cut.zip"), tmp_path / "out")


def test_a_finished_set_is_not_overwritten(pets, tmp_path):
    build_shards(str(pets), tmp_path / "out")
    with pytest.raises(ValueError, match="finished shard set"):
        build_shards(str(pets), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "train", "val"), [("endless-sky", 48, 16), ("fashion-mnist", 192, 64), ("sonic-pi", 18, 6)]
)
def test_the_fixture_builds(name, train, val, tmp_path):
    report = build_shards(f"fixture:{name}", tmp_path)
    assert {split: manifest.samples for split, manifest in report.sets.items()} == {"train": train, "val": val}
    assert not report.bad
    assert report.sets["train"].licence == FIXTURES[name][1]


def test_the_fixture_is_small_and_every_file_is_attributed():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 1_000_000
    attribution = (FOLDER / "ATTRIBUTION.md").read_text()
    with zipfile.ZipFile(FOLDER / "endless-sky.zip") as archive:
        assert all(f"`{name}`" in attribution for name in archive.namelist())
    assert "Permission is hereby granted" in attribution
    with zipfile.ZipFile(FOLDER / "sonic-pi.zip") as archive:
        attribution = (FOLDER / "ATTRIBUTION-sounds.md").read_text()
        assert all(f"`{name}`" in attribution for name in archive.namelist())


class FakeSet:
    classes = ("zero", "one")

    def __init__(self, root, train, download):
        assert download
        self.targets = [0, 1, 1] if train else [0]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return Image.new("L", (4, 4), i), self.targets[i]


def test_a_torchvision_dataset_becomes_its_own_sets(monkeypatch, tmp_path):
    monkeypatch.setattr("torchvision.datasets.MNIST", FakeSet)
    report = build_shards("torchvision:mnist", tmp_path / "out", cache=str(tmp_path / "cache"))
    assert {name: manifest.samples for name, manifest in report.sets.items()} == {"train": 3, "test": 1}
    assert sorted(labels_of(tmp_path / "out/train").values()) == ["one", "one", "zero"]


def test_an_unreachable_torchvision_dataset_names_the_remedy(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises(ValueError, match=r"Is this machine online.*mmtok shards build fixture"):
        build_shards("torchvision:cifar10", tmp_path / "out", cache=str(tmp_path))


def test_every_torchvision_name_is_a_class_of_it():
    import torchvision.datasets

    assert all(hasattr(torchvision.datasets, known.cls) for known in datasets.KNOWN.values())


def test_a_folder_of_sets_names_them_where_one_set_is_wanted(pets, tmp_path):
    build_shards(str(pets), tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds some. Name one: .*out/train, .*out/val"):
        ShardSet.open(tmp_path / "out")
