"""What a run says and writes, over the real module and trainer."""

import csv
import dataclasses
from pathlib import Path

import pytest
from lightning import Trainer
from lightning.pytorch.profilers import PassThroughProfiler, SimpleProfiler

from mmtok.training.callbacks.media import is_due
from mmtok.training.callbacks.scalars import FETCH, LoopClock
from mmtok.training.run import train


def rows(config):
    with open(f"{config.run_dir}/metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def told():
    return []


def test_a_run_leaves_lines_rows_and_grids(tiny, told):
    log = {"every_steps": 2, "usage_every_steps": 2, "media_every_steps": 4, "progress": True}
    config = tiny(log=log, trainer={"threads": 1, "max_steps": 6, "val_every": 3})
    train(config, told.append)
    assert [row["step"] for row in rows(config)] == ["1", "2", "3", "4", "6"]
    row = rows(config)[3]
    for name in (
        "loss",
        "loss/pixel",
        "psnr",
        "optim/lr",
        "speed/samples_per_second",
        "speed/data_wait",
        "usage/active",
    ):
        assert float(row[name]) >= 0, name
    assert float(row["samples"]) == 4 * config.data.batch_size
    validated = rows(config)[2]
    names = (
        "val/psnr",
        "val/ssim",
        "val/quantization_gap",
        "val/high_frequency_ratio",
        "val/usage/active",
        "probe/match",
    )
    for name in names:
        assert validated[name], name
    assert told[0].startswith("step 1/6 | loss ")
    assert any(
        line.startswith("step 4/6 | loss ") and " img/s | data wait " in line and " eta " in line for line in told
    )
    assert any(line.startswith("validation at step 3 | loss ") for line in told)
    grids = sorted(path.name for path in (Path(config.run_dir) / "media").glob("*.png"))
    assert grids == [f"step-{step:08d}.png" for step in (1, 2, 4, 6)]


def test_a_resumed_run_continues_the_log(tiny, told):
    config = tiny(trainer={"threads": 1, "max_steps": 4, "val_every": 0})
    train(config, told.append)
    longer = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, max_steps=6))
    train(longer, told.append)
    assert [row["step"] for row in rows(config)] == ["1", "2", "3", "4", "5", "6"]
    assert float(rows(config)[-1]["samples"]) == 6 * config.data.batch_size


def test_rows_count_updates_and_samples_under_accumulation(tiny, told):
    config = tiny(trainer={"threads": 1, "max_steps": 3, "accumulate": 2, "val_every": 0})
    train(config, told.append)
    assert [(row["step"], float(row["samples"])) for row in rows(config)] == [("1", 8), ("2", 16), ("3", 24)]


def test_grids_stop_growing_in_number(tiny, told):
    config = tiny(
        log={"media_every_steps": 3, "media_keep": 1}, trainer={"threads": 1, "max_steps": 12, "val_every": 0}
    )
    train(config, told.append)
    grids = sorted(int(path.stem.split("-")[1]) for path in (Path(config.run_dir) / "media").glob("*.png"))
    assert grids == [1, 2, 12]


def test_grids_are_due_at_powers_of_two_then_at_the_interval():
    assert [step for step in range(1, 41) if is_due(step, 10)] == [1, 2, 4, 8, 10, 20, 30, 40]
    assert not any(is_due(step, 0) for step in range(100))


def test_the_wait_for_data_is_what_the_loader_costs(monkeypatch):
    """Lightning's own name for it is not public, so a new version that renames it must fail here."""
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    clock = LoopClock(PassThroughProfiler())
    loop = _TrainingEpochLoop(Trainer(logger=False, enable_checkpointing=False, max_steps=1, barebones=False))
    loop.trainer.profiler = clock
    now = iter([10.0, 12.5])
    monkeypatch.setattr("mmtok.training.callbacks.scalars.time.perf_counter", lambda: next(now))
    loop._on_before_fetch()
    loop._on_after_fetch()
    assert clock.take() == {FETCH: 2.5}
    assert clock.take() == {}


def test_a_profiler_the_user_chose_still_sees_everything():
    inner = SimpleProfiler()
    with LoopClock(inner).profile("anything"):
        pass
    assert "anything" in inner.recorded_durations
