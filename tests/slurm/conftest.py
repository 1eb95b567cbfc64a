"""The cluster, a recipe of seconds, and what a straight run of it ends with."""

import os
import sys
from pathlib import Path

import pytest

from tests.slurm.lab import STEPS, Lab

SLOWLY = """
import time

from mmtok.training.module import TokenizerModule

step = TokenizerModule.training_step


def slowly(self, *args):
    time.sleep(0.1)
    return step(self, *args)


TokenizerModule.training_step = slowly
"""
"""A plugin, found where the job runs: on a fast machine a run would be over before it is told to stop."""


@pytest.fixture(scope="session")
def lab():
    import shutil

    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make test-slurm")
    cluster = Lab()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """The folder of recipe.yaml, two_nodes.yaml, one_task.yaml and the shards."""
    import yaml

    from benchmarks.ddp import tree
    from datamodules.build import build_shards

    out = tmp_path_factory.mktemp("jobs")
    build_shards("fixture", out / "shards")
    recipe = tree("vq", 1, out, STEPS)
    del recipe["run_dir"]
    recipe["plugins"] = ["slowly"]
    (out / "slowly.py").write_text(SLOWLY)
    recipe["trainer"] |= {"val_every": 60, "agree_every": 5}
    recipe["checkpoint"] |= {"every_steps": 20}
    recipe["log"] |= {"every_steps": 10, "usage_every_steps": 50, "media_every_steps": 0, "progress": False}
    recipe["data"] |= {"workers": 1}
    (out / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    shape = {
        "time": "00:30:00", "nodes": 2, "cpus_per_task": 2, "signal_lead": 60,
        "env": {"MASTER_ADDR": "127.0.0.1", "OMP_WAIT_POLICY": "PASSIVE"},
    }  # fmt: skip
    (out / "two_nodes.yaml").write_text(yaml.safe_dump(shape))
    (out / "one_task.yaml").write_text(yaml.safe_dump(shape | {"nodes": 1}))
    return out


@pytest.fixture(scope="session")
def submit(lab, place):
    """submit(cluster, *settings, array=None) -> the job's id, by the command itself."""
    from mmtok.cli import main

    os.environ.update(lab.environment)
    before = Path.cwd()
    os.chdir(place)
    sys.path.insert(0, str(place))  # where the jobs find it by themselves

    def run(cluster, *settings, array=None):
        words = ["submit", str(place / "recipe.yaml"), *settings, "--cluster", str(place / f"{cluster}.yaml")]
        assert main([*words, *(["--array", array] if array else [])]) == 0
        runs = [Path(word.removeprefix("run_dir=")) for word in settings if word.startswith("run_dir=")]
        ids = sorted(path.read_text().strip() for path in runs[0].rglob("job"))
        return ids[0].split("_")[0]

    yield run
    os.environ.pop("SLURM_CONF")
    os.chdir(before)
    sys.path.remove(str(place))
