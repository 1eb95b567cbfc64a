"""The batch script does what its rules say: run by bash, with srun and scontrol that only take notes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mmtok.cluster.config import ClusterConfig, ContainerConfig
from mmtok.cluster.script import Job, render
from mmtok.cluster.templates import TEMPLATES, render_template

ROOT = Path(__file__).parents[3]
SRUN = """#!/bin/bash
echo "$@" > "$NOTES/srun"
env > "$NOTES/environment"
mkdir -p "$RUN/checkpoints"
case $DOES in
    done) ;;
    saved) echo 40 > "$RUN/checkpoints/last.ckpt"; echo 40 > "$RUN/REQUEUE" ;;
    killed) exit 137 ;;
    error) exit 1 ;;
    late-error) echo 40 > "$RUN/checkpoints/last.ckpt"; exit 1 ;;
esac
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo node7; echo node8; else echo "$@" >> "$NOTES/scontrol"; fi
"""


@pytest.fixture
def batch(tmp_path):
    """batch(does, restart=0, array=None) -> (exit status, what it said, requeued ids)."""
    run = tmp_path / "run"
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    notes = tmp_path / "notes"
    notes.mkdir()

    def start(does, restart=0, array=False, **shape):
        runs = ("/nowhere", str(run)) if array else (str(run),)
        job = Job(name="j", title="A job.", folder=str(tmp_path), command='train "$run_dir"', runs=runs)
        script = tmp_path / "submit.sbatch"
        script.write_text(render(job, ClusterConfig(**shape)))
        (notes / "scontrol").unlink(missing_ok=True)
        env = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "NOTES": str(notes), "RUN": str(run), "DOES": does,
            "SLURM_JOB_ID": "41", "SLURM_JOB_NAME": "j", "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_CPUS_PER_TASK": "6",
            **({"SLURM_RESTART_COUNT": str(restart)} if restart else {}),
            **({"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"} if array else {}),
        }  # fmt: skip
        done = subprocess.run(["bash", str(script)], env=env, capture_output=True, text=True, timeout=20)
        asked = (notes / "scontrol").read_text().split("\n")[:-1] if (notes / "scontrol").exists() else []
        return done.returncode, done.stdout + done.stderr, asked

    start.notes = notes
    start.run = run
    return start


@pytest.mark.parametrize(
    ("does", "status", "asked"),
    [
        ("done", 0, []),
        ("saved", 0, ["requeue 41"]),
        ("killed", 0, ["requeue 41"]),
        ("late-error", 0, ["requeue 41"]),
        ("error", 1, []),
    ],
)
def test_a_job_is_requeued_where_that_helps(batch, does, status, asked):
    code, said, requeued = batch(does)
    assert (code, requeued) == (status, asked), said


def test_a_task_of_an_array_requeues_itself_alone(batch):  # platform.md 2.17
    assert batch("saved", array=True)[2] == ["requeue 40_1"]


def test_a_sentinel_of_an_earlier_start_does_not_count(batch):
    batch("saved")
    assert batch("done", restart=1) == (0, "", [])


def test_a_job_that_restarts_too_often_gives_up(batch):
    assert batch("saved", restart=3, max_restarts=3)[0] == 0
    code, said, requeued = batch("saved", restart=4, max_restarts=3)
    assert (code, requeued) == (1, [])
    assert "more than cluster.max_restarts=3" in said


def test_a_job_that_makes_no_progress_gives_up(batch):
    assert batch("killed", restart=0)[2] == ["requeue 41"]
    assert batch("killed", restart=1)[2] == ["requeue 41"]
    code, said, requeued = batch("killed", restart=2)
    assert (code, requeued) == (1, [])
    assert "the last 2 starts left no new checkpoint" in said
    assert len((batch.run / "starts").read_text().splitlines()) == 2


def test_progress_between_restarts_keeps_a_job_going(batch):
    assert [batch("saved", restart=restart)[2] for restart in range(5)] == [["requeue 41"]] * 5


def test_the_tasks_get_what_srun_would_not_pass_on(batch):  # platform.md 4
    batch("done", env={"GLOO_SOCKET_IFNAME": "lo"})
    found = dict(line.split("=", 1) for line in (batch.notes / "environment").read_text().splitlines() if "=" in line)
    assert found["SRUN_CPUS_PER_TASK"] == found["OMP_NUM_THREADS"] == "6"
    assert (found["MASTER_ADDR"], found["MASTER_PORT"], found["GLOO_SOCKET_IFNAME"]) == ("node7", "20041", "lo")
    assert found["TRITON_CACHE_DIR"].endswith("mmtok-41/triton")
    assert "--kill-on-bad-exit=1" in (batch.notes / "srun").read_text()
    batch("done", env={"MASTER_ADDR": "10.0.0.1"})
    assert "MASTER_ADDR=10.0.0.1" in (batch.notes / "environment").read_text().splitlines()


def test_directives_follow_the_cluster():
    shape = ClusterConfig(
        partition="p", account="0042", time="2-00", nodes=3, gpus_per_node=4, memory="0", sbatch=("--exclude=n1",)
    )
    job = Job(name="j", title="A job.", folder="/r", command="train", runs=("/a", "/b"))
    lines = render(job, shape).splitlines()
    for option in (
        "account=0042", "time=2-00", "nodes=3", "ntasks-per-node=4", "gres=gpu:4", "mem=0", "array=0-1", "requeue",
        "open-mode=append", "signal=USR1@300", "output=/r/logs/%x-%A_%a.out", "exclude=n1",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in lines, option


@pytest.mark.parametrize("kind", ["apptainer", "pyxis"])
def test_a_container_sees_the_run_and_the_code(kind):
    container = ContainerConfig(kind=kind, image="/i.sif", mounts=("/data:/data",))
    script = render(
        Job(name="j", title="A job.", folder="/r", command="train", runs=("/r",), code="/r/code"),
        ClusterConfig(gpus_per_node=1, container=container),
    )
    assert "/data:/data,$PWD:$PWD,$run_dir:$run_dir" in script
    assert "python -m mmtok train" in script
    assert "scontrol" not in script[script.index("srun --") : script.index("status=$?")]  # platform.md 2.16


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_is_what_is_rendered_and_is_valid_shell(name):
    path = ROOT / "slurm" / f"{name}.sbatch"
    assert path.read_text() == render_template(name), "python -m mmtok.cluster.templates"
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(path)], check=True)


def test_no_template_stands_beside_the_rendered_ones():
    assert {path.stem for path in (ROOT / "slurm").glob("*.sbatch")} == {*TEMPLATES}
