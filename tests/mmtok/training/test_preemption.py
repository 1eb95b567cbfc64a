"""A run that is told to stop saves, says so, and goes on as if it had never stopped."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from datamodules.build import build_shards
from mmtok.loading import read_checkpoint
from mmtok.schema import ConfigError
from mmtok.training.callbacks.preemption import Preempted, StopSignals, check_same_start
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train

ROOT = Path(__file__).parents[3]


def silent(line):
    pass


def signal_at(monkeypatch, step, number):
    """The process gets a signal in the middle of an update."""
    update = TokenizerModule._update

    def signalled(self, *args):
        if self.trainer.global_step == step:
            os.kill(os.getpid(), number)
        update(self, *args)

    monkeypatch.setattr(TokenizerModule, "_update", signalled)


def assert_same_end(one, other):
    expected, got = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, other))
    assert got["global_step"] == expected["global_step"]
    for name, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][name], value), name
    steps = [[row["step"] for row in csv.DictReader((run / "metrics.csv").open())] for run in (one, other)]
    assert steps[0] == steps[1]


# Validated every 3 updates and logged every 4: in the middle of both windows, and where a validation follows.
@pytest.mark.parametrize(("number", "step"), [(signal.SIGUSR1, 4), (signal.SIGTERM, 2), (signal.SIGUSR1, 3)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_signalled_run_saves_after_the_update_and_continues_to_the_same_end(
    tiny, tmp_path, monkeypatch, number, step, accumulate
):  # platform.md 2.14
    blocks = {"trainer": {"max_steps": 8, "accumulate": accumulate}, "checkpoint": {"every_steps": 0, "keep": 0}}
    blocks["log"] = {"every_steps": 4}
    straight = train(tiny(**blocks, run_dir=str(tmp_path / "straight")), silent)
    with monkeypatch.context() as patch:
        signal_at(patch, step, number)
        with pytest.raises(Preempted, match=f"{number.name} at step {step + 1}, saved") as stop:
            train(tiny(**blocks), silent)
    run = tmp_path / "run"
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] == stop.value.step == step + 1
    assert (run / "REQUEUE").read_text() == f"{step + 1}\n"
    train(tiny(**blocks), silent)
    assert not (run / "REQUEUE").exists()
    assert_same_end(straight, run)


def test_a_signal_in_the_last_update_changes_nothing(tiny, monkeypatch):
    signal_at(monkeypatch, 5, signal.SIGTERM)
    run = train(tiny(), silent)
    assert not (run / "REQUEUE").exists()


def test_signals_mean_what_they_did_once_the_run_is_over(tiny, monkeypatch):
    before = [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)]
    train(tiny(), silent)
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)] == before
    signal_at(monkeypatch, 7, signal.SIGUSR1)
    with pytest.raises(Preempted):
        train(tiny(trainer={"max_steps": 9}), silent)
    assert [signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGTERM)] == before


def test_a_forked_worker_ignores_the_handler_it_inherits():  # platform.md 4
    signals = StopSignals()
    signals.install()
    try:
        child = os.fork()
        if not child:
            os.kill(os.getpid(), signal.SIGUSR1)
            os._exit(signals.received)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.received == signal.SIGUSR1
    finally:
        signals.restore()


def test_loader_workers_outlive_the_signals_of_a_scheduler(tmp_path):
    from datamodules.stream import loader

    class Workers(torch.utils.data.IterableDataset):
        def __iter__(self):
            while True:
                yield os.getpid()

    batches = iter(loader(Workers(), workers=1))
    worker = next(batches)
    for name in ("TERM", "USR1"):  # from another process, as a scheduler does
        subprocess.run(["kill", f"-{name}", str(worker)], check=True)
    assert {next(batches) for _ in range(20)} == {worker}
    (process,) = batches._workers
    process.terminate()  # as Python does at exit, where it then waits for the worker
    process.join(timeout=10)
    assert process.exitcode == 0


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What two ranks leave that were told to stop, and were not."""
    out = tmp_path_factory.mktemp("ranks")
    build_shards("fixture", out / "shards")
    words = [sys.executable, str(Path(__file__).with_name("stopped_ranks.py")), str(out)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return out


def test_a_signal_to_any_one_rank_stops_both_after_the_same_update(ranks):  # platform.md 2.12, 4
    for rank in (0, 1):
        assert json.loads((ranks / f"seen-{rank}.json").read_text()) == [[10, "SIGUSR1", 10], [15, "SIGTERM", 15]]


def test_two_ranks_that_were_stopped_twice_end_where_two_that_were_not_do(ranks):
    assert_same_end(ranks / "straight", ranks / "stopped")


def _begin(rank, folder, steps):
    store = torch.distributed.FileStore(f"{folder}/store", 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        check_same_start(steps[rank], torch.distributed.group.WORLD)
        said = "same"
    except ConfigError as error:
        said = str(error)
    Path(folder, f"{steps[0]}-{rank}.txt").write_text(said)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("steps", "said"), [((20, 20), "same"), ((10, 20), "different updates, 10 and 20")])
def test_ranks_that_read_different_checkpoints_find_out(tmp_path, steps, said):
    torch.multiprocessing.spawn(_begin, (str(tmp_path), steps), nprocs=2)
    for rank in (0, 1):
        assert said in (tmp_path / f"{steps[0]}-{rank}.txt").read_text()
