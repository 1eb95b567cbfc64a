from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from benchmarks.hostile import add
from datamodules.tarscan import MAX_EXTENSIONS, scan


def scan_bytes(data):
    return scan(lambda at, size: data[at : at + size])


def tar_of(*members, kind=tarfile.USTAR_FORMAT):
    """(name, content) pairs as a tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
        for name, content in members:
            add(tar, name, content)
    return file.getvalue()


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_samples_are_found_in_all_formats_with_long_and_foreign_names(kind):
    long = "/".join(["d" * 50] * 3) if kind == tarfile.USTAR_FORMAT else "n" * 300
    members = [("a.jpg", b"12345"), ("a.cls", b"7"), (f"{long}/ä.jpg", b"x" * 1000), ("last.txt", b"")]
    data = tar_of(*members, kind=kind)
    found = scan_bytes(data)
    assert (found.damage, found.refused) == ("", [])
    assert [key for key, _ in found.samples] == ["a", f"{long}/ä", "last"]
    read = [
        (f"{key}.{extension}", data[at : at + size])
        for key, places in found.samples
        for extension, (at, size) in places.items()
    ]
    assert read == members


def test_a_key_ends_at_the_first_dot_of_the_file_name():
    """Platform 3 trap 9: 'a.b.jpg' is sample a with extension b.jpg; dots of folders do not count."""
    found = scan_bytes(tar_of(("v1.0/a.b.jpg", b""), ("v1.0/a.cls", b""), ("./c.JPG", b"")))
    assert [(key, sorted(places)) for key, places in found.samples] == [("v1.0/a", ["b.jpg", "cls"]), ("c", ["jpg"])]


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "a/../../b.jpg", "c:\\a.jpg", "C:a.jpg", "README", ".a.jpg"])
def test_a_path_that_leads_out_or_has_no_key_is_refused(name):
    found = scan_bytes(tar_of(("good.jpg", b""), (name, b"")))
    assert [key for key, _ in found.samples] == ["good"]
    assert [problem.name for problem in found.refused] == [name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, "link.jpg", kind=kind, link="/etc/passwd")
        add(tar, "good.jpg", b"x")
    found = scan_bytes(file.getvalue())
    assert [key for key, _ in found.samples] == ["good"]
    assert [problem.name for problem in found.refused] == ["link.jpg"]


def test_folders_and_notes_are_passed_over():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        add(tar, "folder", kind=tarfile.DIRTYPE)
        add(tar, "__note__", b"x")
        add(tar, "folder/a.jpg", b"x")
    found = scan_bytes(file.getvalue())
    assert ([key for key, _ in found.samples], found.refused_count) == (["folder/a"], 0)


def test_a_repeated_key_or_member_is_refused():
    found = scan_bytes(tar_of(("a.jpg", b"1"), ("a.jpg", b"2"), ("b.jpg", b"3"), ("a.jpg", b"4")))
    assert [key for key, _ in found.samples] == ["a", "b"]
    assert [problem.name for problem in found.refused] == ["a.jpg", "a"]


def test_extensions_are_bounded():
    found = scan_bytes(tar_of(*[(f"{i:04d}.e{i}", b"") for i in range(MAX_EXTENSIONS + 30)]))
    assert (len(found.samples), found.refused_count) == (MAX_EXTENSIONS, 30)


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 5000, 10_240 - 1024])
def test_of_a_cut_tar_only_complete_samples_are_taken(cut):
    """Platform 3 trap 9: WebDataset yields a partial last sample."""
    members = [(f"{i:03d}.{extension}", b"x" * 600) for i in range(3) for extension in ("jpg", "txt")]
    data = tar_of(*members)
    whole = scan_bytes(data)
    found = scan_bytes(data[:cut])
    assert whole.damage == ""
    assert found.damage
    assert found.samples == whole.samples[: len(found.samples)]
    assert all(set(places) == {"jpg", "txt"} for _, places in found.samples)
    assert len(found.samples) < 3


def test_a_damaged_header_in_the_middle_is_no_end():
    """`tarfile` stops there silently."""
    data = bytearray(tar_of(*[(f"{i}.jpg", b"x" * 100) for i in range(9)]))
    data[4 * 1024 + 150] ^= 0xFF
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert len(tar.getnames()) == 4
    found = scan_bytes(bytes(data))
    assert "no tar header at byte 4096" in found.damage
    assert len(found.samples) == 3


def test_an_extended_header_of_any_size_is_not_read():
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    data = member.tobuf(tarfile.GNU_FORMAT)
    read = []
    found = scan(lambda at, size: read.append(size) or (data[at : at + size] if at < 512 else b"\0" * size))
    assert "extended header" in found.damage
    assert max(read) <= 512


def test_noise_never_raises():
    rng = np.random.default_rng(0)
    original = tar_of(*[(f"{i}.jpg", b"x" * 50) for i in range(5)], kind=tarfile.PAX_FORMAT)
    for _ in range(300):
        data = bytearray(original)
        for _ in range(rng.integers(1, 20)):
            data[rng.integers(len(data))] = rng.integers(256)
        scan_bytes(bytes(data[: rng.integers(len(data))]))
        scan_bytes(rng.bytes(int(rng.integers(3000))))


@pytest.mark.parametrize("head", [b"\x1f\x8b", b"BZh9", b"\xfd7zXZ"])
def test_a_compressed_tar_is_named_as_such(head):
    assert "compressed" in scan_bytes(head + b"\0" * 600).damage
