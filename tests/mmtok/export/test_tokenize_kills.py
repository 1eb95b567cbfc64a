"""A job of tokenizing is killed at each of its steps on the disk, meets others, and runs where links are missing."""

import errno
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch

from datamodules.manifest import MANIFEST
from mmtok.export import token_plan
from mmtok.export.token_output import Lock
from mmtok.export.token_plan import Plan
from mmtok.export.token_shards import missing
from mmtok.export.tokenize_job import Part
from tests.mmtok.export import tiny
from tests.mmtok.export.tokenizing import contents, go

pytestmark = pytest.mark.usefixtures("one_thread")
FORK = multiprocessing.get_context("fork")
STEPS = ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink"), (Path, "touch"))
"""What a job does to files that must last, in any order: each is a moment to die before."""


def counted(at, patch, count):
    """Call `at(number)` before each step."""

    def before(whole):
        def step(*args, **options):
            count.append(whole.__name__)
            at(len(count))
            return whole(*args, **options)

        return step

    for home, name in STEPS:
        patch.setattr(home, name, before(getattr(home, name)))


def die(step):
    def at(number):
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def killed(tokenizer, source, out, step):
    torch.set_num_threads(1)
    counted(die(step), pytest.MonkeyPatch(), [])
    go(tokenizer, source, out)


def test_a_job_killed_before_any_of_its_steps_goes_on_and_leaves_the_same_bytes(image, tmp_path, monkeypatch):
    source = tiny.pictures(tmp_path / "source", 4, each=2)
    steps = []
    with monkeypatch.context() as patch:
        counted(lambda number: None, patch, steps)
        go(image, source, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert steps.count("fsync") == 2 + 2 * 3 + 1  # plan, spec; tar, index and record of two shards; manifest
    for step in range(1, len(steps) + 1):
        out = tmp_path / f"out{step}"
        process = FORK.Process(target=killed, args=(image, source, out, step))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, step
        go(image, source, out)
        assert contents(out) == whole, (step, steps[step - 1])


def hold(folder, name, ready, end):
    lock = Lock(folder, name)
    ready.set()
    end.wait(60)
    lock.release()


def test_a_lock_keeps_two_processes_apart_and_goes_with_the_one_that_is_killed(tmp_path):
    ready, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, "s", ready, end))
    process.start()
    assert ready.wait(60)
    assert not Lock(tmp_path, "s").mine
    assert Lock(tmp_path, "t").mine
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    after = Lock(tmp_path, "s")
    assert after.mine
    after.release()


def test_a_lock_that_was_released_is_the_next_processs(tmp_path):
    ready, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=hold, args=(tmp_path, "s", ready, end))
    process.start()
    assert ready.wait(60)
    end.set()
    process.join(60)
    assert process.exitcode == 0
    assert Lock(tmp_path, "s").mine


def test_two_jobs_at_once_write_each_shard_once_and_the_same_bytes(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 12, each=2)
    go(image, source, tmp_path / "whole")
    out = tmp_path / "out"
    processes = [FORK.Process(target=go, args=(image, source, out)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    go(image, source, out)
    assert contents(out) == contents(tmp_path / "whole")


def test_the_manifest_is_written_by_one_after_the_other(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 4), tmp_path / "out"
    go(image, source, out)
    ready, end = FORK.Event(), FORK.Event()
    holder = FORK.Process(target=hold, args=(out, MANIFEST, ready, end))
    holder.start()
    assert ready.wait(60)
    (out / MANIFEST).unlink()
    other = FORK.Process(target=go, args=(image, source, out))
    other.start()
    other.join(1.0)
    assert other.is_alive()
    assert not (out / MANIFEST).exists()
    end.set()
    other.join(60)
    assert (other.exitcode, (out / MANIFEST).exists()) == (0, True)
    assert not list(out.glob(".*"))


def no_links(*args):
    raise OSError(errno.EOPNOTSUPP, "Operation not supported")


def test_a_folder_is_claimed_where_hard_links_are_missing(image, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(token_plan, "PATIENCE", 0.2)
    plans = [Plan("t", "f", "s", "set", "m", "own", batch, None, ()) for batch in (2, 3)]
    plans[0].claim(tmp_path)
    plans[0].claim(tmp_path)
    with pytest.raises(ValueError, match="batch 2 there and 3 here"):
        plans[1].claim(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.json"]
    (tmp_path / "tokens.json").write_text("")
    with pytest.raises(ValueError, match=r"tokens.json is damaged: .*Remove the folder"):
        plans[0].claim(tmp_path)


def test_a_plan_that_is_being_written_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    first = Plan("t", "f", "s", "set", "m", "own", 2, None, ())
    first.claim(tmp_path)
    text = (tmp_path / "tokens.json").read_text()
    (tmp_path / "tokens.json").write_text("")
    monkeypatch.setattr(token_plan.time, "sleep", lambda seconds: (tmp_path / "tokens.json").write_text(text))
    first.claim(tmp_path)


def test_another_error_of_linking_is_told(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space"):
        Plan("t", "f", "s", "set", "m", "own", 2, None, ()).claim(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_folder_is_changed_before_it_is_listed(tmp_path, monkeypatch):
    # An NFS client lists a folder from memory until it has changed something in it itself.
    (tmp_path / "a.record.json").touch()
    changes = []
    touch, listed = Path.touch, Path.iterdir
    monkeypatch.setattr(Path, "touch", lambda path: changes.append("change") or touch(path))
    monkeypatch.setattr(Path, "iterdir", lambda path: changes.append("list") or listed(path))
    assert missing(tmp_path, ["a", "b"]) == ["b"]
    assert changes == ["change", "list"]


def test_of_two_parts_that_end_at_once_the_later_listing_finds_both(image, tmp_path, monkeypatch):
    # Part 1 ends between the last record of part 0 and its look at the folder.
    source, out = tiny.pictures(tmp_path / "source", 4, each=2), tmp_path / "out"
    whole = missing

    def late(folder, names):
        monkeypatch.setattr("mmtok.export.tokenize_job.missing", whole)
        assert go(image, source, out, part=Part(1, 2)).missing == 0
        (out / MANIFEST).unlink()
        return whole(folder, names)

    monkeypatch.setattr("mmtok.export.tokenize_job.missing", late)
    assert go(image, source, out, part=Part(0, 2)).missing == 0
    assert json.loads((out / MANIFEST).read_text())["samples"] == 4
