"""A run that was killed ends where one that was not does: weights, log, and when it validates and saves."""

import csv

import pytest
import torch

from benchmarks.kills import tensors
from mmtok.loading import read_checkpoint
from mmtok.training.callbacks.schedule import ValidationSchedule
from mmtok.training.module import TokenizerModule
from mmtok.training.resume import world_line
from mmtok.training.run import train

RQ = {"name": "rq", "codebook_size": 16, "depth": 2, "dropout": 0.5, "restart": 0.1, "init": "kmeans"}


def silent(line):
    pass


def checkpoint(run_dir):
    return read_checkpoint(run_dir / "checkpoints" / "last.ckpt")


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{name: value for name, value in row.items() if not name.startswith("speed/")} for row in found]


def kill_at(monkeypatch, step):
    """The process dies in update `step`, as if by the scheduler: nothing is saved on the way out."""
    update = TokenizerModule._update

    def dying(self, *args):
        if self.trainer.global_step == step:
            raise ProcessLookupError
        update(self, *args)

    monkeypatch.setattr(TokenizerModule, "_update", dying)


# Saved every 2 updates and validated every 3: at 2 in the middle, at 6 after the validation of the same update, which
# must be neither skipped nor repeated (platform.md 9). Rows are of 3 updates and usage of 5: windows that are open when
# the state is saved, with what they hold.
@pytest.mark.parametrize(("killed", "accumulate"), [(3, 1), (3, 2), (7, 1), (7, 2)])
def test_a_killed_run_ends_as_an_uninterrupted_one(tiny, tmp_path, monkeypatch, killed, accumulate):
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "mid_blocks": 0}
    blocks = {
        "quantizer": RQ,
        # Dropout draws from torch's own generator, which no checkpoint holds (platform.md 2.21).
        "tokenizer": {"encoder": encoder | {"dropout": 0.2}},
        "trainer": {"max_steps": 8, "accumulate": accumulate},
        "optim": {"schedule": "cosine", "warmup_steps": 4},
        "adversary": {"discriminator": {"name": "patchgan", "channels": 4, "layers": 1}, "start": 2, "lecam": 0.01},
        "log": {"every_steps": 3, "usage_every_steps": 5, "media_every_steps": 4},
        "deterministic": True,
    }
    straight = train(tiny(**blocks, run_dir=str(tmp_path / "straight")), silent)
    with monkeypatch.context() as patch:
        kill_at(patch, killed)
        with pytest.raises(ProcessLookupError):
            train(tiny(**blocks), silent)
    told: list[str] = []
    resumed = train(tiny(**blocks), told.append)
    assert f"from step {killed - 1}" in told[0]
    expected, got = (dict(tensors(checkpoint(run))) for run in (straight, resumed))
    assert expected.keys() == got.keys()
    assert [name for name, value in expected.items() if not torch.equal(got[name], value)] == []
    assert rows(resumed) == rows(straight)
    media = [{path.name: path.read_bytes() for path in (run / "media").iterdir()} for run in (straight, resumed)]
    assert media[0] == media[1]
    assert sorted(media[0]) == [f"step-{step:08d}.png" for step in (1, 2, 4, 8)]


def test_the_last_update_is_validated_though_the_interval_does_not_divide(tiny):
    run = train(tiny(trainer={"max_steps": 5, "val_every": 3}), silent)
    assert [row["step"] for row in rows(run) if row["val/loss"]] == ["3", "5"]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_val_every_0_validates_after_the_last_update_alone(tiny, accumulate):
    run = train(tiny(trainer={"max_steps": 3, "val_every": 0, "accumulate": accumulate}), silent)
    assert [row["step"] for row in rows(run) if row["val/loss"]] == ["3"]


def test_a_run_that_stops_early_validates_no_more_often(tiny, monkeypatch):
    def stop(self, trainer, *args):
        trainer.should_stop = trainer.global_step == 4

    monkeypatch.setattr(ValidationSchedule, "on_train_batch_end", stop_after(stop))
    run = train(tiny(), silent)
    assert checkpoint(run)["global_step"] == 4
    assert [row["step"] for row in rows(run) if row["val/loss"]] == ["3"]
    monkeypatch.undo()
    train(tiny(), silent)
    assert [row["step"] for row in rows(run) if row["val/loss"]] == ["3", "6"]


def stop_after(stop):
    """The schedule's own hook, then another."""
    real = ValidationSchedule.on_train_batch_end

    def both(self, trainer, *args):
        real(self, trainer, *args)
        stop(self, trainer, *args)

    return both


def test_a_finished_run_goes_on_where_it_is_given_more_updates(tiny, tmp_path):
    straight = train(tiny(run_dir=str(tmp_path / "straight"), trainer={"max_steps": 8}), silent)
    train(tiny(trainer={"max_steps": 4}), silent)
    longer = train(tiny(trainer={"max_steps": 8}), silent)
    expected, got = (checkpoint(run)["state_dict"] for run in (straight, longer))
    assert [name for name, value in expected.items() if not torch.equal(got[name], value)] == []


def test_checkpoints_are_not_written_over_where_the_configuration_got_lost(tiny, tmp_path):
    train(tiny(trainer={"max_steps": 4}), silent)
    (tmp_path / "run" / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"holds another experiment, which differs in\n  seed"):
        train(tiny(trainer={"max_steps": 4}, seed=5), silent)
    said = []
    train(tiny(trainer={"max_steps": 6}), said.append)
    assert any("from step 4" in line for line in said)
    assert (tmp_path / "run" / "config.yaml").is_file()


def test_a_change_of_ranks_is_said_in_a_line(tiny, tmp_path):
    assert world_line(2, 2, 8) is None
    assert world_line(1, 2, 8).startswith("2 ranks continue what 1 began: the same global batches")
    assert world_line(2, 1, 8).startswith("1 rank continues what 2 began")
    assert world_line(2, 3, 8).endswith("every rank reads from all data.streams=8, which 3 does not divide.")


def test_a_checkpoint_of_lightnings_own_requeueing_is_not_begun_with(tiny, tmp_path):  # platform.md 2.15
    run = tmp_path / "run"
    run.mkdir()
    (run / "hpc_ckpt_1.ckpt").write_bytes(b"of another run")
    with pytest.raises(ValueError, match=r"hpc_ckpt_1\.ckpt is of another program.*Give run_dir=ANOTHER"):
        train(tiny(), silent)
    (run / "hpc_ckpt_1.ckpt").unlink()
    train(tiny(trainer={"max_steps": 2}), silent)
    assert not [*run.glob("hpc_ckpt_*")]
