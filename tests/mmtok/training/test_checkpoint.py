"""Checkpoints: whole or not at all, on the disk before their name is, and what becomes of a damaged one."""

import os
import zipfile

import pytest
import torch

from mmtok.loading import load, newest_whole, read_checkpoint
from mmtok.seal import broken_seal
from mmtok.training import checkpoint as under_test
from mmtok.training.checkpoint import Checkpoints
from mmtok.training.logs import MetricsFile
from mmtok.training.run import train

GAN = {"discriminator": {"name": "patchgan", "channels": 4, "layers": 1}}


def silent(line):
    pass


def flip(path, place):
    """One bit of a file, by a copy: `last.ckpt` and `step-N.ckpt` are the same bytes."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.unlink()
    path.write_bytes(content)


@pytest.fixture
def run(tiny):
    return train(tiny(), silent)


@pytest.mark.parametrize(("when", "expected"), [((2, 0.0), [2, 4, 6]), ((0, 1e-9), [1, 2, 3, 4, 5, 6])])
def test_saves_by_step_and_by_time_with_two_optimisers(tiny, monkeypatch, when, expected):  # platform.md 2.2, 2.3
    saved = []
    publish = Checkpoints._publish
    monkeypatch.setattr(Checkpoints, "_publish", lambda self, *args: (saved.append(args[1]), publish(self, *args)))
    train(tiny(adversary=GAN, checkpoint={"every_steps": when[0], "every_minutes": when[1]}), silent)
    assert saved == expected


def test_the_name_comes_after_the_content_is_on_the_disk(tiny, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*args, name=name, real=real, **kwargs):
            place = os.readlink(f"/proc/self/fd/{args[0]}") if name == "fsync" else str(args[1])
            events.append((name, os.path.basename(place)))
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, spy)
    train(tiny(trainer={"max_steps": 2}), silent)
    last = events.index(("replace", "last.ckpt"))
    before = [place for name, place in events[:last] if name == "fsync"]
    assert before == ["last.ckpt.partial", "last.ckpt.partial", "metrics.csv"]
    assert events[last + 1] == ("fsync", "checkpoints")


def test_a_checkpoint_is_an_archive_that_others_read_and_its_checksum_travels_with_it(run, tmp_path):
    copy = tmp_path / "elsewhere.ckpt"
    copy.write_bytes((run / "checkpoints" / "last.ckpt").read_bytes())
    assert zipfile.ZipFile(copy).comment.startswith(b"mmtok sha256 ")
    assert torch.load(copy, weights_only=True)["global_step"] == 6  # platform.md 2.20
    assert not broken_seal(copy)
    flip(copy, copy.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"elsewhere\.ckpt is damaged: its checksum does not fit its content"):
        read_checkpoint(copy)


@pytest.mark.parametrize("harm", ["a bit", "the end", "all of it"])
def test_a_run_falls_back_from_a_damaged_checkpoint_and_ends_as_it_would_have(tiny, tmp_path, harm):
    straight = train(tiny(run_dir=str(tmp_path / "straight")), silent)
    run = train(tiny(), silent)
    last, newest = (run / "checkpoints" / name for name in ("last.ckpt", "step-6.ckpt"))
    for path in (last, newest):
        if harm == "a bit":
            flip(path, path.stat().st_size // 2)
        else:
            os.truncate(path, 1000 if harm == "the end" else 0)
    told = []
    train(tiny(), told.append)
    assert told[0].startswith(f"WARNING: {last} is damaged")
    assert "Falling back to step-4.ckpt: what was trained after step 4 is trained again." in told[0]
    assert "continuing" in told[1]
    states = [read_checkpoint(one / "checkpoints" / "last.ckpt")["state_dict"] for one in (straight, run)]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name
    assert newest_whole(run / "checkpoints").damaged == ()


def test_loading_a_run_takes_the_newest_whole_checkpoint_and_names_it(run):
    flip(run / "checkpoints" / "last.ckpt", 5000)
    with pytest.warns(UserWarning, match=r"last\.ckpt is damaged: .* Taking .*step-6\.ckpt instead"):
        load(run)


def test_a_run_without_a_whole_checkpoint_is_not_begun_anew(tiny, run):
    for path in (run / "checkpoints").iterdir():
        flip(path, 5000)
    with pytest.raises(ValueError, match=r"No whole checkpoint is left in .*checkpoints\. Bring one back"):
        train(tiny(), silent)
    with pytest.raises(ValueError, match="No whole checkpoint is left"):
        load(run)


def test_a_run_whose_last_checkpoint_is_missing_continues_from_the_newest(tiny, run):
    (run / "checkpoints" / "last.ckpt").unlink()
    told = []
    train(tiny(trainer={"max_steps": 7}), told.append)
    assert "from step 6" in told[0]


def test_a_full_disk_leaves_the_checkpoint_before(tiny, monkeypatch):
    train(tiny(trainer={"max_steps": 2}), silent)
    # Whatever is written to this file is refused by the kernel for want of room.
    monkeypatch.setattr(
        under_test, "remove_partial", lambda folder: (folder / "last.ckpt.partial").symlink_to("/dev/full")
    )
    message = (
        r"of step 4 could not be written \(No space left on device\); the one before it, if any, stands. Make room"
    )
    with pytest.raises(OSError, match=message) as caught:
        train(tiny(trainer={"max_steps": 4}), silent)
    folder = os.path.dirname(caught.value.filename) + "/checkpoints"
    assert sorted(os.listdir(folder)) == ["last.ckpt", "step-2.ckpt"]
    monkeypatch.undo()
    told = []
    train(tiny(trainer={"max_steps": 4}), told.append)
    assert "from step 2" in told[0]


def test_a_disk_that_is_full_for_the_log_says_what_stands(tiny, monkeypatch):
    def full(self, step, values):
        raise OSError(28, os.strerror(28))

    train(tiny(trainer={"max_steps": 2}), silent)
    with monkeypatch.context() as patch:
        patch.setattr(MetricsFile, "write", full)
        with pytest.raises(
            OSError, match=r"No space left on device; what was saved before stands\. Make room"
        ) as caught:
            train(tiny(trainer={"max_steps": 4}), silent)
    assert caught.value.filename.endswith("run")
    told = []
    train(tiny(trainer={"max_steps": 4}), told.append)
    assert "from step 2" in told[0]


class Ranks:
    """A trainer of two ranks as far as saving looks, seen from the second: the first broadcasts what befell it."""

    is_global_zero = False
    global_step = 3

    def __init__(self):
        self.strategy = self
        self.calls = []

    def save_checkpoint(self, path):
        self.calls.append("save")

    def broadcast(self, mine):
        self.calls.append("broadcast")
        return (28, "of step 3 could not be written", "folder") if "save" in self.calls else None


def test_what_befalls_the_first_rank_ends_the_others_too(tmp_path):
    ranks = Ranks()
    with pytest.raises(OSError, match="of step 3 could not be written"):
        Checkpoints(under_test.CheckpointConfig(), tmp_path).save(ranks)
    assert ranks.calls == ["broadcast", "save", "broadcast"]
