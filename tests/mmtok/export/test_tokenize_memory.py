"""What does not fit the memory fails its shard by name; what never would is a bad sample; the others go on."""

import errno
import os

import pytest
import torch

from datamodules.manifest import MANIFEST
from datamodules.shards import ShardSet
from mmtok.cli import main
from mmtok.export import tokenize_input, tokenize_units
from mmtok.export.encoding import Encoder
from mmtok.export.token_output import Lock
from mmtok.export.token_shards import stands
from mmtok.export.tokenize_input import Preparer, out_of_memory
from tests.mmtok.export import tiny
from tests.mmtok.export.tokenizing import SIZES, contents, go, read

pytestmark = pytest.mark.usefixtures("one_thread")
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": MemoryError(),
}


def failing(error, wrong):
    whole = Encoder.__call__

    def call(self, x, lengths):
        if wrong(x):
            raise error
        return whole(self, x, lengths)

    return call


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_without_room_fails_its_shard_and_the_others_are_written(
    image, tmp_path, monkeypatch, error, workers
):
    big = {"big": {"png": tiny.png(40, 50, 1)}}
    samples = {f"item{i:03d}": {"png": tiny.png(16, 16, i)} for i in range(8)}
    source = tiny.write_set(tmp_path / "source", "images", dict(list(samples.items())[:5]) | big | samples, each=4)
    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "__call__", failing(ERRORS[error], lambda x: x.shape[2] == 40))
        total = go(image, source, tmp_path / "out", workers=workers)
    assert total.failed == [
        "train-000001: big (50 x 40 pixels) does not fit the memory of cpu. Take a larger device, or a smaller --size, "
        "and another OUT."
    ]
    assert stands(tmp_path / "out", "train-000000")
    assert stands(tmp_path / "out", "train-000002")
    assert not (tmp_path / "out" / MANIFEST).exists()
    go(image, source, tmp_path / "out")
    go(image, source, tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_batch_without_room_says_that_batch_decides_about_codes(audio, tmp_path, monkeypatch):
    source = tiny.sounds(tmp_path / "source", 3)
    monkeypatch.setattr(Encoder, "__call__", failing(ERRORS["cpu"], lambda x: True))
    (failed,) = go(audio, source, tmp_path / "out").failed
    assert "3 samples of 0.1 s, item000 first, do not fit the memory of cpu together." in failed
    assert "a lower --batch or shorter sounds" in failed


def test_another_error_of_an_encoder_is_no_want_of_memory(image, tmp_path, monkeypatch):
    source = tiny.pictures(tmp_path / "source", 3)
    monkeypatch.setattr(Encoder, "__call__", failing(RuntimeError("shapes differ"), lambda x: True))
    with pytest.raises(RuntimeError, match="shapes differ"):
        go(image, source, tmp_path / "out")
    assert not out_of_memory(ValueError("out of memory"))


def test_a_file_that_is_decoded_without_room_is_not_left_out_for_ever(image, tmp_path, monkeypatch):
    source = tiny.pictures(tmp_path / "source", 8)
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.Image.load", lambda *args: (_ for _ in ()).throw(MemoryError()))
        patch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda *args: (_ for _ in ()).throw(MemoryError()))
        total = go(image, source, tmp_path / "out")
    assert [said.partition(":")[0] for said in total.failed] == ["train-000000", "train-000001"]
    assert total.bad == []
    assert go(image, source, tmp_path / "out").items == 8


def test_too_many_pixels_are_a_bad_sample_and_fit_once_they_are_scaled(image, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenize_input, "MAX_PIXELS", 1000)
    source = tiny.pictures(tmp_path / "source", 3, big={"png": tiny.png(40, 50, 1)})
    total = go(image, source, tmp_path / "out")
    assert total.bad == [
        ("train-000000", "big", "50 x 40 pixels are above 1,000, which are encoded at once. Scale: --size.")
    ]
    assert go(image, source, tmp_path / "fit", size="fit").bad == []
    with pytest.raises(ValueError, match="--size 32 is above 31"):
        go(image, source, tmp_path / "other", size="32")


def test_a_process_that_was_killed_names_the_option_that_changes_no_codes(image, tmp_path, monkeypatch, capsys):
    source = tiny.pictures(tmp_path / "source", 8)
    monkeypatch.setattr(Preparer, "__call__", lambda *args: os._exit(9))
    words = ["tokenize", image, source, str(tmp_path / "out"), "--workers", "1", "--devices", "cpu"]
    assert main(words) == 2
    assert "Give fewer --workers: the same command continues" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".*.lock"))


def test_what_waits_of_a_shard_that_failed_is_in_no_other(image, tmp_path, monkeypatch):
    # Units of two: the first leaves pictures waiting, the second fails, the third is the shard's last.
    source, whole = tiny.pictures(tmp_path / "source", 12, SIZES, each=6), ShardSet.read
    go(image, source, tmp_path / "whole", batch=2)

    def fail(self, shard, sample, extensions=None):
        if (shard, sample) == (0, 2):
            raise OSError(errno.EIO, "Input/output error")
        return whole(self, shard, sample, extensions)

    with monkeypatch.context() as patch:
        patch.setattr(ShardSet, "read", fail)
        go(image, source, tmp_path / "out", batch=2)
    go(image, source, tmp_path / "out", batch=2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert len(read(tmp_path / "out")) == 12


def test_a_tar_that_cannot_be_opened_now_is_written_by_the_next_job(image, tmp_path, monkeypatch):
    source, out, whole = tiny.pictures(tmp_path / "source", 8), tmp_path / "out", os.open

    def fail(path, *args, **options):
        if str(path) == f"{source}/train-000000.tar":
            raise OSError(errno.EMFILE, "Too many open files")
        return whole(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        total = go(image, source, out)
    assert (total.failed, total.bad) == (["train-000000: [Errno 24] Too many open files"], [])
    assert go(image, source, out).items == 4


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_of_a_shard_that_another_process_writes_is_read(image, tmp_path, monkeypatch, workers):
    source, out, seen = tiny.pictures(tmp_path / "source", 12), tmp_path / "out", tmp_path / "seen"
    out.mkdir()
    other = Lock(out, "train-000001")
    whole = tokenize_units.ShardUnits._read

    def noted(self, shard, numbers, last):
        with seen.open("a") as file:
            file.write(f"{shard} ")
        return whole(self, shard, numbers, last)

    monkeypatch.setattr(tokenize_units.ShardUnits, "_read", noted)
    total = go(image, source, out, workers=workers)
    other.release()
    assert (total.items, total.missing) == (8, 1)
    assert set(seen.read_text().split()) == {"0", "2"}
