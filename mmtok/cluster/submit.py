"""Recipes and a cluster to a job: resolved runs, a preflight, a script and a copy of the code in the run directory."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmtok
from mmtok.cluster.config import ClusterConfig, load_cluster
from mmtok.cluster.preflight import preflight
from mmtok.cluster.script import Job, render
from mmtok.cluster.status import JOB
from mmtok.config import FitConfig, RunConfig, dump_yaml, fingerprint, load_any, load_config
from mmtok.schema import ConfigError
from mmtok.training.lease import read_lease

Say = Callable[[str], None]
SCRIPT = "submit.sbatch"
PACKAGES = ("mmtok", "datamodules")
CLUSTER = "cluster."
"""Prefix of settings that are the cluster's, not the run's."""


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be written and submitted."""

    runs: tuple[RunConfig, ...]
    """One, or an array's."""
    cluster: ClusterConfig
    folder: Path
    """Of the script, the code and the batch shell's log: the run directory, or the folder of an array's."""
    script: str

    @property
    def path(self) -> Path:
        """Where the script is written."""
        return self.folder / SCRIPT


def plan(layers: Sequence[str], settings: Sequence[str], cluster: str, array: str | None = None) -> Submission:
    """Resolve everything; nothing is written.

    Args:
        layers: recipes, files or a run.
        settings: `key=value` of the run, and `cluster.key=value`.
        cluster: a name in configs/cluster, or a YAML file.
        array: "KEY=a,b,c", a run for each value.

    Raises:
        ConfigError: a mistake in any of them.
    """
    shape = load_cluster(cluster, [word.removeprefix(CLUSTER) for word in settings if word.startswith(CLUSTER)])
    own = [word for word in settings if not word.startswith(CLUSTER)]
    if len(layers) == 1 and (Path(layers[0]) / "config.yaml").is_file():
        own = [f"run_dir={layers[0]}", *own]
    if isinstance(load_any(layers, own).config, FitConfig):
        command = shlex.join(["mmtok", "train", *layers, *own])
        raise ConfigError(
            f"{layers[0]} is fitted by one process, in one pass that nothing has to continue. A plain job does it: "
            f"sbatch --ntasks=1 --cpus-per-task=16 --wrap {shlex.quote(command)}"
        )
    # Before what was typed, so that a number that does not match the cluster is found and not hidden.
    fitted = [f"trainer.num_nodes={shape.nodes}", f"trainer.devices={shape.tasks}", *own]
    base = load_config(layers, fitted).config
    runs: tuple[RunConfig, ...] = (base,)
    if array is None:
        folder = Path(base.run_dir)
    else:
        key, values = split_array(array)
        named = any(word.startswith("run_dir=") for word in own)
        folder = Path(base.run_dir) if named else Path(base.run_dir).with_name(f"{fingerprint(base)}-{key}")
        places = {value: folder / _slug(value) for value in values}
        if len(set(places.values())) < len(values):
            raise ConfigError(f"--array {array}: two of the values are the same, or differ in punctuation only.")
        runs = tuple(
            load_config(layers, [*fitted, f"{key}={value}", f"run_dir={place}"]).config
            for value, place in places.items()
        )
    # Absolute: the job may start in another folder than it was submitted from.
    runs = tuple(dataclasses.replace(run, run_dir=os.path.abspath(run.run_dir)) for run in runs)
    folder = folder.absolute()
    job = Job(
        name=f"mmtok-{_slug(Path(layers[0]).stem)}",
        title=f"Rendered by mmtok. Submit it again with: sbatch {shlex.quote(str(folder / SCRIPT))}",
        folder=str(folder),
        command='train "$run_dir" "$@"',
        runs=tuple(shlex.quote(run.run_dir) for run in runs),
        workdir=os.getcwd(),
        code=str(folder / "code"),
    )
    return Submission(runs, shape, folder, render(job, shape))


def check(submission: Submission) -> list[str]:
    """Every problem of every run, once."""
    problems = [line for run in submission.runs for line in preflight(run, submission.cluster)]
    for path in [Path.cwd(), submission.folder, *(Path(run.run_dir) for run in submission.runs)]:
        if re.search(r"[\s%\\]", str(path)):
            problems.append(f"{path} has a space, % or backslash in it, which sbatch reads its own way. Use another.")
        holder = read_lease(path)
        if holder is not None and holder.alive():
            problems.append(f"{path} is in use by {holder}. Wait, or stop it.")
    return list(dict.fromkeys(problems))


def submit(submission: Submission) -> str:
    """Write the runs' configurations, the code and the script, and hand it to sbatch; returns the job's id.

    Raises:
        ConfigError: there is no sbatch, or it refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise ConfigError("there is no sbatch here. Submit from a login node of the cluster, or look with --dry-run.")
    for run in submission.runs:
        folder = Path(run.run_dir)
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(dump_yaml(run), encoding="utf-8")
    (submission.folder / "logs").mkdir(parents=True, exist_ok=True)
    copy_code(submission.folder / "code")
    submission.path.write_text(submission.script, encoding="utf-8")
    done = subprocess.run(["sbatch", "--parsable", str(submission.path)], capture_output=True, text=True)
    if done.returncode:
        raise ConfigError(f"sbatch refused {submission.path}: {done.stderr.strip()}")
    job = done.stdout.strip().split(";")[0]  # a federation's cluster follows
    for number, run in enumerate(submission.runs):
        name = job if len(submission.runs) == 1 else f"{job}_{number}"
        (Path(run.run_dir) / JOB).write_text(f"{name}\n", encoding="utf-8")
    return job


def copy_code(target: Path) -> None:
    """The packages as they are now, put in the place of an older copy at once."""
    draft, old = target.with_name("code.new"), target.with_name("code.old")
    for folder in (draft, old):
        shutil.rmtree(folder, ignore_errors=True)
    root = Path(mmtok.__file__).parents[1]
    for package in PACKAGES:
        shutil.copytree(root / package, draft / package, ignore=shutil.ignore_patterns("__pycache__", "*.zip"))
    if target.exists():
        os.replace(target, old)
    os.replace(draft, target)
    shutil.rmtree(old, ignore_errors=True)


def split_array(text: str) -> tuple[str, list[str]]:
    """'KEY=a,b,[1,2]' -> (key, values); commas in brackets belong to a value.

    Raises:
        ConfigError: there are fewer than two values.
    """
    key, _, rest = text.partition("=")
    values = [value.strip() for value in re.split(r",(?![^\[{]*[\]}])", rest) if value.strip()]
    if not key or len(values) < 2:
        raise ConfigError(f"--array {text}: write KEY=a,b,c, for example quantizer.name=vq,fsq,lfq.")
    return key, values


def _slug(value: str) -> str:
    """A value as a folder's name."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "empty"
