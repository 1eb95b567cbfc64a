"""The scripts in `slurm/`: what `mmtok submit` renders, for those who would rather edit a file and call sbatch.

python -m mmtok.cluster.templates     # writes them anew; a test holds them to it
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmtok.cluster.config import load_cluster
from mmtok.cluster.script import Job, render
from mmtok.resources import resource_root

_TRAIN = """train "$@" "run_dir=$run_dir" \\
    "trainer.num_nodes=$SLURM_JOB_NUM_NODES" "trainer.devices=$SLURM_NTASKS_PER_NODE\""""
_UNTRIED = "Checked with bash -n and shellcheck only: no cluster with this runtime was at hand.\n# "


def _training(name: str, note: str = "") -> Job:
    use = f"RUN_DIR=runs/mine sbatch slurm/{name}.sbatch image/vqvae hardware/gpu data.shards=DIR"
    run_dir = '$(realpath -m "${RUN_DIR:?give one}")'
    return Job(name="mmtok", title=note + "mkdir -p logs; " + use, folder=".", command=_TRAIN, runs=(run_dir,))


def _sweep() -> Job:
    runs = tuple(f'"$PWD/runs/sweep/{name}"' for name in ("vq", "fsq", "lfq", "rq"))
    use = "mkdir -p logs; sbatch slurm/array.sbatch image/vqvae hardware/gpu data.shards=DIR"
    command = f'{_TRAIN} \\\n    "quantizer.name=${{run_dir##*/}}"'
    return Job(name="mmtok-sweep", title=use, folder=".", command=command, runs=runs)


def _shards() -> Job:
    use = "mkdir -p logs; sbatch slurm/shards.sbatch build FOLDER_OR_ARCHIVE -o data/mine"
    return Job(name="mmtok-shards", title=use, folder=".", command='shards "$@"')


TEMPLATES: dict[str, tuple[Job, str]] = {
    "one_node": (_training("one_node"), "gpu_node"),
    "many_nodes": (_training("many_nodes"), "gpu"),
    "array": (_sweep(), "gpu_node"),
    "shards": (_shards(), "cpu"),
    "apptainer": (_training("apptainer", _UNTRIED), "apptainer"),
    "pyxis": (_training("pyxis", _UNTRIED), "pyxis"),
}
"""File -> (job, cluster in configs/cluster)."""


def render_template(name: str) -> str:
    """One of the scripts."""
    job, cluster = TEMPLATES[name]
    return render(job, dataclasses.replace(load_cluster(cluster), python="python"))


def write(folder: Path) -> None:
    """All of them."""
    for name in TEMPLATES:
        (folder / f"{name}.sbatch").write_text(render_template(name), encoding="utf-8")


if __name__ == "__main__":
    write(resource_root("slurm"))
