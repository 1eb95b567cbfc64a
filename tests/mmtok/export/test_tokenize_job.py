"""A job of tokenizing writes each shard exactly once, whatever stops it, and says what it left out."""

import multiprocessing
import os
import signal

import pytest
import torch

from datamodules.manifest import MANIFEST
from datamodules.shards import ShardSet
from datamodules.writer import ShardTar
from mmtok.cli import main
from mmtok.export.token_output import Lock
from mmtok.export.token_plan import Plan
from mmtok.export.token_shards import stands
from mmtok.export.tokenize_job import Part
from tests.mmtok.export import tiny
from tests.mmtok.export.tokenizing import SIZES, contents, go, read

pytestmark = pytest.mark.usefixtures("one_thread")


def killed(tokenizer, source, out, after):
    """Die in the middle of a tar, as by SIGKILL."""
    added = ShardTar.add
    count = 0

    def add(self, key, members):
        nonlocal count
        count += 1
        if count > after:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        added(self, key, members)

    ShardTar.add = add
    torch.set_num_threads(1)
    go(tokenizer, source, out)


def test_a_job_that_was_killed_goes_on_and_leaves_the_same_bytes(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14, SIZES)
    go(image, source, tmp_path / "whole")
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(image, source, out, 9))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (out / MANIFEST).exists()
    left = (out / "train-000000.tar").stat().st_mtime_ns
    total = go(image, source, out, workers=1)
    assert (total.stood, total.items) == (2, 6)
    assert (out / "train-000000.tar").stat().st_mtime_ns == left
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_shard_that_is_damaged_is_written_again(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 10), tmp_path / "out"
    go(image, source, out)
    before = contents(out)
    tar = out / "train-000001.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert stands(out, "train-000001") is None
    assert go(image, source, out).items == 4
    assert contents(out) == before
    assert go(image, source, out).items == 0


def test_parts_and_devices_meet_in_one_manifest(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14)
    go(image, source, tmp_path / "whole")
    out = tmp_path / "out"
    first = go(image, source, out, part=Part(0, 2))
    assert (first.shards, first.missing) == (2, 2)
    assert not (out / MANIFEST).exists()
    second = go(image, source, out, part=Part(1, 2))
    assert (second.shards, second.missing) == (2, 0)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_two_devices_share_the_shards(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14)
    go(image, source, tmp_path / "whole")
    assert go(image, source, tmp_path / "out", devices=("cpu", "cpu")).items == 14
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_that_another_process_writes_is_left_to_it(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 8), tmp_path / "out"
    out.mkdir()
    other = Lock(out, "train-000000")
    total = go(image, source, out)
    assert (total.items, total.missing, total.failed) == (4, 1, [])
    other.release()
    assert go(image, source, out).items == 4


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({}, Part(0, 1)),
        ({"ID": 3, "COUNT": 8, "MIN": 0, "MAX": 7, "STEP": 1}, Part(3, 8)),
        ({"ID": 5, "COUNT": 3, "MIN": 1, "MAX": 5, "STEP": 2}, Part(2, 3)),
    ],
)
def test_a_task_of_a_slurm_array_takes_its_part(variables, part):
    assert Part.of({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()}) == part


def test_an_array_of_some_tasks_of_another_must_say_its_parts():
    variables = {"ID": 7, "COUNT": 2, "MIN": 3, "MAX": 7, "STEP": 1}
    with pytest.raises(ValueError, match=r"2 tasks from 3 to 7.*--part"):
        Part.of({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()})
    for wrong in ("4/4", "1", "a/b"):
        with pytest.raises(ValueError, match="is no part"):
            Part.parse(wrong)


def test_bad_samples_are_left_out_counted_and_named(image, tmp_path, capsys):
    bad = {"broken": {"png": b"no picture"}, "empty": {"txt": b"only a text"}}
    source = tiny.pictures(tmp_path / "source", 6, **bad)
    assert main(["tokenize", image, source, str(tmp_path / "out"), "--workers", "0", "--devices", "cpu"]) == 0
    told = capsys.readouterr()
    assert "left out broken in train-000001: " in told.err
    assert "left out empty in train-000001: no picture among ['txt']" in told.err
    assert "2 samples left out" in told.err
    assert "6 items" in told.out
    assert ShardSet.open(tmp_path / "out").manifest.provenance["bad"] == 2
    assert len(read(tmp_path / "out")) == 6


def test_a_shard_of_which_nothing_can_be_used_fails_and_the_others_do_not(image, tmp_path, capsys):
    source = tiny.pictures(tmp_path / "source", 8)
    with open(f"{source}/train-000000.tar", "ab") as file:
        file.write(b"more")
    assert main(["tokenize", image, source, str(tmp_path / "out"), "--workers", "0", "--devices", "cpu"]) == 2
    told = capsys.readouterr().err
    assert "not written: train-000000: " in told
    assert "1 shards could not be written" in told
    assert stands(tmp_path / "out", "train-000001")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_folder_of_another_call_is_refused(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 4)
    go(image, source, tmp_path / "out")
    with pytest.raises(ValueError, match="of another call: batch 3 there and 2 here"):
        go(image, source, tmp_path / "out", batch=2)
    other = tiny.image_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="fingerprint"):
        go(other, source, tmp_path / "out")


def test_a_passing_error_of_reading_leaves_the_shard_to_the_next_job(image, tmp_path, monkeypatch):
    source, out, whole = tiny.pictures(tmp_path / "source", 8), tmp_path / "out", ShardSet.read

    def fail(self, shard, sample, extensions=None):
        if (shard, sample) == (0, 1):
            raise OSError(5, "Input/output error")
        return whole(self, shard, sample, extensions)

    with monkeypatch.context() as patch:
        patch.setattr(ShardSet, "read", fail)
        total = go(image, source, out)
    assert (total.failed, total.bad) == (["train-000000: item001: [Errno 5] Input/output error"], [])
    assert not (out / MANIFEST).exists()
    assert go(image, source, out).items == 4
    assert len(read(out)) == 8


def test_no_manifest_stands_over_a_shard_that_was_cut(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 8), tmp_path / "out"
    go(image, source, out, part=Part(0, 2))
    os.truncate(out / "train-000000.tar", 1024)
    with pytest.raises(ValueError, match=r"train-000000\.tar is not as it was written"):
        go(image, source, out, part=Part(1, 2))
    assert not (out / MANIFEST).exists()
    go(image, source, out, part=Part(0, 2))
    assert len(read(out)) == 8


def test_of_two_calls_that_begin_at_once_one_has_the_folder(tmp_path, monkeypatch):
    plans = [Plan("t", "f", "s", "set", "m", "own", batch, None, ()) for batch in (2, 3)]
    link = os.link

    def late(draft, path):  # the other one comes between the look and the write
        monkeypatch.setattr(os, "link", link)
        plans[0].claim(tmp_path)
        link(draft, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ValueError, match="batch 2 there and 3 here"):
        plans[1].claim(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.json"]


def test_what_no_sample_has_cannot_be_kept(image, tmp_path, capsys):
    source = tiny.pictures(tmp_path / "source", 2)
    words = ["tokenize", image, source, str(tmp_path / "out"), "--devices", "cpu", "--workers", "0"]
    assert main([*words, "--keep", "txt,nope"]) == 2
    assert f"--keep nope: no sample of {source} has it; it holds png, txt." in capsys.readouterr().err
    assert main([*words, "--keep", "cls"]) == 2
    assert not (tmp_path / "out").exists()
    assert main(words) == 0  # cls is kept where there is one
    assert main([*words[:3], str(tmp_path / "none"), *words[4:], "--keep", ""]) == 0
    assert ShardSet.open(tmp_path / "none").manifest.extensions == ("codes.json", "codes.npy")


@pytest.mark.parametrize(("option", "said"), [("--batch=0", "at least 1"), ("--workers=-1", "at least 0")])
def test_a_number_that_makes_no_sense_is_named_alone(option, said, capsys):
    assert main(["tokenize", "t", "s", "o", option]) == 2
    assert f"{option} must be {said}." in capsys.readouterr().err
