"""Cells of a comparison as an array of SLURM jobs."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence

from mmtok.cluster.config import load_cluster
from mmtok.cluster.script import Job, render
from mmtok.cluster.submit import SCRIPT, Submission
from mmtok.compare.plan import Comparison
from mmtok.schema import ConfigError


def submission_of(comparison: Comparison, cluster: str, words: Sequence[str] = ()) -> Submission:
    """The job that does every cell that lacks something; nothing is written.

    Args:
        comparison: of which cells are wanted.
        cluster: one of configs/cluster, or a YAML file.
        words: `key=value` of the cluster.

    Raises:
        ConfigError: a mistake in the cluster, one that is not a single task, or nothing left to do.
    """
    shape = load_cluster(cluster, words)
    if shape.nodes * shape.tasks != 1:
        raise ConfigError(
            f"--slurm {cluster} gives each job {shape.nodes} nodes of {shape.tasks} tasks, and a cell is one process. "
            "Set cluster.nodes=1 cluster.tasks=1."
        )
    todo = set(comparison.todo())
    places = [(place, cell) for place, cell in comparison.cells if place in todo]
    if not places:
        raise ConfigError(f"every cell of {comparison.folder} is done. Its tables: mmtok compare {comparison.folder}")
    runs = tuple(dataclasses.replace(cell.config(place), run_dir=str(place)) for place, cell in places)
    job = Job(
        name=f"mmtok-compare-{comparison.folder.name}",
        title=f"Rendered by mmtok compare. Submit it again with: sbatch {shlex.quote(str(comparison.folder / SCRIPT))}",
        folder=str(comparison.folder),
        command='compare --cell "$run_dir"',
        runs=tuple(shlex.quote(run.run_dir) for run in runs),
        workdir=os.getcwd(),
        code=str(comparison.folder / "code"),
    )
    return Submission(runs, shape, comparison.folder, render(job, shape))
