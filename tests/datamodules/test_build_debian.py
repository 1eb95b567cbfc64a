"""Debian packages: made here by hand, fetched by an apt that is a script."""

import gzip
import io
import json
import lzma
import shutil
import struct
import subprocess
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from datamodules.build import build_shards
from datamodules.build.deb import Deb, fetch
from datamodules.build.package_pictures import read_idx, stamp_group
from datamodules.shards import ShardSet

COMPRESS = {"tar": bytes, "gz": gzip.compress, "xz": lzma.compress}


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def make_deb(path, package, files, version="1.0-1", compression="xz"):
    """A package as dpkg-deb would make it."""
    control = tar_of({"control": f"Package: {package}\nVersion: {version}\nDescription: made\n in a test\n".encode()})
    suffix = "" if compression == "tar" else f".{compression}"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(control),
        f"data.tar{suffix}": COMPRESS[compression](tar_of(files)),
    }
    with path.open("wb") as file:
        file.write(b"!<arch>\n")
        for name, data in parts.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path


def picture(kind="PNG", color=(9, 200, 30), size=(40, 30), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, kind)
    return buffer.getvalue()


def samples_of(out):
    """Key -> (set, members, class) over all sets."""
    found = {}
    for name in ("train", "val", "test"):
        if (out / name).exists():
            shards = ShardSet.open(out / name)
            for shard, count in enumerate(shards.counts):
                for i in range(count):
                    key, members = shards.read(shard, i)
                    found[key] = (name, members, shards.manifest.classes[int(members["cls"])])
    return found


@pytest.mark.parametrize("compression", ["tar", "gz", "xz"])
def test_a_package_is_read_without_dpkg(compression, tmp_path):
    deb = Deb(make_deb(tmp_path / "a.deb", "toys", {"usr/a": b"one", "usr/b": b"two"}, compression=compression))
    assert (deb.package, deb.version) == ("toys", "1.0-1")
    assert dict(deb.files(lambda name: name.endswith("b"))) == {"usr/b": b"two"}


def zstd(data):
    return subprocess.run(["zstd", "-c"], input=data, capture_output=True, check=True).stdout


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd command to compress with")
def test_a_package_compressed_with_zstd_is_read_or_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(COMPRESS, "zst", zstd)
    deb = Deb(make_deb(tmp_path / "a.deb", "toys", {"usr/a": b"one"}, compression="zst"))
    if find_spec("zstandard") or find_spec("compression"):
        assert dict(deb.files(lambda _: True)) == {"usr/a": b"one"}
    else:
        with pytest.raises(ValueError, match="pip install zstandard"):
            list(deb.files(lambda _: True))


@pytest.mark.parametrize("size", [3, 100, 400])
def test_a_package_that_is_cut_short_is_named(size, tmp_path):
    path = make_deb(tmp_path / "a.deb", "toys", {"usr/a": bytes(1000)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"a\.deb"):
        list(Deb(path).files(lambda _: True))


def test_content_damaged_inside_is_named(tmp_path):
    path = make_deb(tmp_path / "a.deb", "toys", {"usr/a": np.random.default_rng(0).bytes(4000)})
    data = bytearray(path.read_bytes())
    data[-2000:-1900] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        list(Deb(path).files(lambda _: True))


def test_endless_sky_is_split_alike_in_both_its_packages(tmp_path):
    """One holds the photographs of the other at twice the size: data.md, "Images"."""
    names = [f"{topic}{i}" for topic in ("beach", "city") for i in range(20)]
    land = "usr/share/games/endless-sky/images/land"
    small = {f"{land}/{name}.jpg": picture("JPEG") for name in names} | {"usr/share/x/ui.jpg": picture("JPEG")}
    large = {f"{land}/{name}@2x.jpg": picture("JPEG", size=(80, 60)) for name in names}
    make_deb(tmp_path / "a.deb", "endless-sky-data", small)
    make_deb(tmp_path / "b.deb", "endless-sky-high-dpi", large)
    build_shards(str(tmp_path / "a.deb"), tmp_path / "a", tile=20)
    build_shards(str(tmp_path / "b.deb"), tmp_path / "b", tile=20)
    sides = [{key.split("-")[0]: side for key, (side, _, _) in samples_of(tmp_path / out).items()} for out in "ab"]
    assert sides[0] == sides[1]
    assert set(sides[0]) == set(names)
    assert {label for _, _, label in samples_of(tmp_path / "a").values()} == {"beach", "city"}


def test_stamps_stand_on_white_with_their_captions(tmp_path):
    root = "usr/share/tuxpaint/stamps"
    files = {
        f"{root}/animals/birds/hen.png": picture(mode="RGBA", color=(255, 0, 0, 0)),
        f"{root}/animals/birds/hen.txt": b"A hen.\nde.utf8=Ein Huhn.\nfr.utf8=Une poule.\nzh.big5=?\n",
        f"{root}/animals/birds/hen_mirror.png": picture(),
        f"{root}/town/house.png": picture(),
        f"{root}/town/house.ogg": b"sound",
    }
    make_deb(tmp_path / "a.deb", "tuxpaint-stamps-default", files)
    build_shards(str(tmp_path / "a.deb"), tmp_path / "out", val_fraction=0.5)
    samples = samples_of(tmp_path / "out")
    side, members, label = samples["animals_birds_hen"]
    assert label == "animals"
    assert members["txt"] == b"A hen."
    assert json.loads(members["json"]) == {"captions": {"en": "A hen.", "de": "Ein Huhn.", "fr": "Une poule."}}
    assert Image.open(io.BytesIO(members["png"])).getpixel((0, 0)) == (255, 255, 255)
    mirrored = samples["animals_birds_hen_mirror"]
    assert (mirrored[0], mirrored[1]["txt"]) == (side, b"A hen.")
    assert set(samples["town_house"][1]) == {"png", "cls"}


@pytest.mark.parametrize(
    ("name", "group"), [("a/xing_mirror", "xing"), ("a/frog-1", "frog"), ("b/Frog", "frog"), ("math/7", "7")]
)
def test_variants_of_a_stamp_are_one_group(name, group):
    assert stamp_group(name) == group


def idx(array):
    return gzip.compress(
        b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    )


def test_fashion_mnist_keeps_its_test_set_and_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.array([9, 0, 3, 3, 1], dtype=np.uint8)
    root = "usr/share/datasets/fashion-mnist"
    files = {}
    for prefix, part in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        files[f"{root}/{prefix}-images-idx3-ubyte.gz"] = idx(pixels[part])
        files[f"{root}/{prefix}-labels-idx1-ubyte.gz"] = idx(labels[part])
    make_deb(tmp_path / "a.deb", "dataset-fashion-mnist", files)
    build_shards(str(tmp_path / "a.deb"), tmp_path / "out")
    samples = samples_of(tmp_path / "out")
    assert {key: (side, label) for key, (side, _, label) in samples.items()} == {
        "train_00000": ("train", "ankle-boot"),
        "train_00001": ("train", "t-shirt"),
        "train_00002": ("train", "dress"),
        "test_00000": ("test", "dress"),
        "test_00001": ("test", "trouser"),
    }
    np.testing.assert_array_equal(Image.open(io.BytesIO(samples["test_00001"][1]["png"])), pixels[4])


def test_an_idx_file_of_something_else_is_refused():
    with pytest.raises(ValueError, match="starts with 0 0 8"):
        read_idx(gzip.compress(b"\0\0\x0d\1\0\0\0\0"))


def test_any_other_package_gives_its_pictures_by_folder(tmp_path):
    files = {"usr/share/art/cats/a.png": picture(), "usr/share/art/cats/a.svg": b"<svg>", "usr/bin/art": b"\x7fELF"}
    make_deb(tmp_path / "a.deb", "art", files)
    build_shards(str(tmp_path / "a.deb"), tmp_path / "out")
    assert {key: label for key, (_, _, label) in samples_of(tmp_path / "out").items()} == {"art_cats_a": "cats"}
    provenance = ShardSet.open(tmp_path / "out/train").manifest.provenance
    assert (provenance["package"], provenance["version"]) == ("art", "1.0-1")
    assert len(provenance["sha256"]) == 64


def test_a_package_without_pictures_is_refused(tmp_path):
    make_deb(tmp_path / "a.deb", "art", {"usr/bin/art": b"\x7fELF"})
    with pytest.raises(ValueError, match="'art' holds no pictures"):
        build_shards(str(tmp_path / "a.deb"), tmp_path / "out")


@pytest.fixture
def fake_apt(tmp_path, monkeypatch):
    """Puts a script in the place of apt-get; it notes how it was called."""

    def install(body):
        folder = tmp_path / "bin"
        folder.mkdir()
        script = folder / "apt-get"
        script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{body}\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return tmp_path / "calls"

    return install


def test_a_package_is_fetched_once(fake_apt, tmp_path):
    make_deb(tmp_path / "toys_1.0-1_all.deb", "toys", {"usr/a.png": picture()})
    calls = fake_apt(f"cp {tmp_path}/toys_1.0-1_all.deb .")
    for out in ("a", "b"):
        build_shards("debian:toys", tmp_path / out, cache=str(tmp_path / "cache"))
    assert len(calls.read_text().splitlines()) == 1


def test_an_index_of_its_own_is_fetched_where_the_machine_has_none(fake_apt, tmp_path):
    make_deb(tmp_path / "toys_1.0-1_all.deb", "toys", {"usr/a.png": picture()})
    has_index = 'case "$*" in *Dir::State::lists*)'
    calls = fake_apt(
        f"{has_index} cp {tmp_path}/toys_1.0-1_all.deb .;; *) echo 'E: Unable to locate' >&2; exit 100;; esac"
    )
    assert fetch("toys", tmp_path / "cache").name == "toys_1.0-1_all.deb"
    assert [("update" in line, "download" in line) for line in calls.read_text().splitlines()] == [
        (False, True),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    ("said", "explained"),
    [
        ("E: Unable to locate package endles-sky", "there is no Debian package 'endles-sky'.*debian:endless-sky"),
        ("E: Failed to fetch http://x  Could not resolve 'x'", "could not be fetched by apt-get: Failed.*online"),
    ],
)
def test_a_failed_download_says_why_and_what_to_do(said, explained, fake_apt, tmp_path):
    fake_apt(f'echo "{said}" >&2; exit 100')
    with pytest.raises(ValueError, match=explained) as error:
        build_shards("debian:endles-sky", tmp_path / "out", cache=str(tmp_path / "cache"))
    assert "mmtok shards build fixture" in str(error.value)


def test_a_machine_without_apt_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"apt-get is not on this machine.*mmtok shards build fixture"):
        build_shards("debian:endless-sky", tmp_path / "out", cache=str(tmp_path / "cache"))
