"""What a script of one's own gets wrong is told in a line, before anything is trained."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmtok.cluster.task import check_task, core_lines

ROOT = Path(__file__).parents[3]
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mine", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
STEP = JOB | {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
}  # fmt: skip


def without(*names):
    return {name: value for name, value in STEP.items() if name not in names}


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [
        ({}, 8, 1),
        (STEP, 2, 2),
        (STEP, "auto", 2),
        # srun -n 1, and a shell inside a job
        (JOB | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NNODES": "1"}, 1, 1),
        (JOB | {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"}, 1, 1),
    ],
)
def test_what_fits_is_let_in(environment, devices, nodes):
    check_task(environment, devices, nodes)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (without("SLURM_NTASKS_PER_NODE"), r"--ntasks=4 without --ntasks-per-node.*Write --nodes=N --ntasks-per-node"),
        (
            STEP | {"SLURM_NTASKS_PER_NODE": "4"},
            r"4 tasks on each node, and trainer.devices=2\. Give trainer.devices=4",
        ),
        (STEP | {"SLURM_NNODES": "1"}, r"1 nodes, and trainer.num_nodes=2\. Give trainer.num_nodes=1"),
        (without("SLURM_STEP_NUM_TASKS"), r"of 4 tasks, and srun did not start it.*'srun' in front"),
        (without("SLURM_PROCID"), "srun did not start it"),
        # Lightning would take each task for the first rank of a run of its own.
        (STEP | {"SLURM_JOB_NAME": "interactive"}, r"one of 4 tasks.*named 'interactive'.*export SLURM_JOB_NAME=mmtok"),
    ],
)
def test_tasks_that_would_not_find_each_other_are_refused(environment, message):  # platform.md 2.18
    with pytest.raises(ValueError, match=message):
        check_task(environment, 2, 2)


def test_a_hand_written_script_meets_no_traceback(shards, tmp_path):  # platform.md 2.18
    words = [sys.executable, "-m", "mmtok", "train", "image/demo", f"data.shards={shards}/train", "run_dir=run"]
    odd = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    env = os.environ | JOB | odd | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--ntasks-per-node" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "cores", "workers", "threads", "expected"),
    [
        ({}, 2, 1, 0, ""),
        ({}, 2, 1, 1, ""),
        ({"SLURM_CPUS_PER_TASK": "12"}, 12, 8, 1, ""),
        ({}, 2, 4, 0, "data.workers=4 and the training process share 2 cores"),
        ({}, 4, 2, 4, "data.workers=2 and trainer.threads=4 share 4 cores"),
        ({"SLURM_CPUS_PER_TASK": "12"}, 1, 8, 1, "gives a task 12 cores, and this process may use 1: .*PER_TASK=12"),
    ],
)
def test_cores_that_are_not_there_are_told(environment, cores, workers, threads, expected):  # platform.md 4
    lines = [*core_lines(environment, cores, workers, threads)]
    assert len(lines) == bool(expected)
    assert re.search(expected, "".join(lines))
