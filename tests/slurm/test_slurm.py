"""Jobs on real daemons: two nodes, requeue, a lost task, arrays, a dead node (platform.md 4).

    make test-slurm

Each scenario that interrupts a run compares it with one that was not: weights, optimisers and the log's steps.
"""

import csv
import os
import signal
import time

import pytest
import torch

from mmtok.cluster.status import ask_queue, status
from mmtok.loading import read_checkpoint
from tests.slurm.lab import STEPS, wait

pytestmark = pytest.mark.slurm
QUANTIZERS = ("vq", "fsq", "lfq", "rq")


def steps(run):
    path = run / "metrics.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [row["step"] for row in csv.DictReader(file) if row["step"]]


def trained(run, step):
    """Wait until a run is past a step, but not at its end."""
    wait(
        lambda: len(steps(run)) > 0 and int(steps(run)[-1]) >= step, 400, f"{run.name} to reach step {step}", logs(run)
    )
    assert int(steps(run)[-1]) < STEPS


def logs(run):
    return lambda: "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(run.glob("logs/*")))


def assert_same(one, other):
    expected, got = (read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (one, other))
    assert got["global_step"] == expected["global_step"] == STEPS
    for name, value in expected["state_dict"].items():
        assert torch.equal(got["state_dict"][name], value), name
    states = [[*content["optimizer_states"][0]["state"].values()] for content in (expected, got)]
    for mine, theirs in zip(*states, strict=True):
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert steps(one) == steps(other)


@pytest.fixture(scope="module")
def straight(lab, submit, place):
    """A run on two nodes that nothing interrupted."""
    run = place / "straight"
    job = submit("two_nodes", f"run_dir={run}")
    wait(lambda: lab.job(job)["JobState"] in ("COMPLETED", "FAILED"), 400, "the straight run", logs(run))
    assert lab.job(job)["JobState"] == "COMPLETED", logs(run)()
    return run


def test_two_nodes_train_as_one_run(straight, lab):
    found = status(straight, ask_queue([(straight / "job").read_text().strip()]))
    assert (found.state, found.step, found.restarts) == ("complete", STEPS, 0)
    assert read_checkpoint(straight / "checkpoints" / "last.ckpt")["mmtok"]["world"] == 2
    assert len(list(straight.glob("logs/*-rank?.out"))) == 2


def test_usr1_saves_requeues_and_ends_as_an_uninterrupted_run(straight, lab, submit, place, capsys):
    run = place / "signalled"
    job = submit("two_nodes", f"run_dir={run}")
    trained(run, 20)
    lab.ask("scancel", "-s", "USR1", job)
    lab.wait_for(job, "PENDING")
    assert (run / "REQUEUE").exists()
    assert status(run).state == "requeued"
    before = len(steps(run))
    lab.wait_for(job, "RUNNING")
    since = time.monotonic()
    wait(lambda: len(steps(run)) > before, 200, f"{run.name} to log again", logs(run))
    with capsys.disabled():
        print(f" [{time.monotonic() - since:.1f} s from the requeued job's start to its first logged update]")
    fields = lab.wait_for(job, "COMPLETED")
    assert int(fields["Restarts"]) == status(run).restarts >= 1
    log = next(run.glob(f"logs/*-{job}.out")).read_text()
    assert "requeueing" in log  # appended to, not cut
    assert_same(straight, run)


def test_a_lost_task_ends_the_step_at_once_and_the_job_goes_on(straight, lab, submit, place):
    run = place / "lost"
    job = submit("two_nodes", f"run_dir={run}")
    trained(run, 30)
    os.kill(lab.tasks(job, "lab2")[0], signal.SIGKILL)
    since = time.monotonic()
    lab.wait_for(job, "PENDING")
    assert time.monotonic() - since < 30  # by default the other rank would be left to wait
    assert int(lab.wait_for(job, "COMPLETED")["Restarts"]) >= 1
    assert_same(straight, run)


def test_scancel_means_the_end(lab, submit, place):
    run = place / "cancelled"
    job = submit("two_nodes", f"run_dir={run}")
    trained(run, 20)
    lab.ask("scancel", job)
    lab.wait_for(job, "CANCELLED")
    time.sleep(5)
    assert lab.job(job)["JobState"] == "CANCELLED"
    assert status(run).restarts == 0


def test_an_array_trains_a_run_each_and_requeues_one_task_alone(lab, submit, place):  # platform.md 2.17
    sweep = place / "sweep"
    job = submit("one_task", f"run_dir={sweep}", "data.workers=0", array=f"quantizer.name={','.join(QUANTIZERS)}")
    # The first task's raw id is the array's: requeueing that one would take all of them along.
    trained(sweep / "vq", 20)
    lab.ask("scancel", "-s", "USR1", f"{job}_0")
    lab.wait_for(f"{job}_0", "PENDING")
    for number, name in enumerate(QUANTIZERS):
        fields = lab.wait_for(f"{job}_{number}", "COMPLETED", 600)
        assert (int(fields["Restarts"]) > 0) == (name == "vq")
        found = status(sweep / name)
        assert (found.state, found.restarts > 0) == ("complete", name == "vq")


def test_a_dead_node_requeues_the_job_and_it_resumes(straight, lab, submit, place):
    run = place / "dead"
    job = submit("two_nodes", f"run_dir={run}")
    trained(run, 30)
    lab.kill_node("lab2", job)
    wait(lambda: lab.job(job)["JobState"] in ("PENDING", "FAILED", "NODE_FAIL"), 120, "the job to end", logs(run))
    wait(lambda: "lab2" in lab.ask("sinfo", "-h", "-N", "-t", "down", "-o", "%N"), 60, "the node to be down", lab.log)
    lab.start_node("lab2")
    fields = lab.wait_for(job, "COMPLETED")
    assert int(fields["Restarts"]) >= 1
    assert_same(straight, run)
