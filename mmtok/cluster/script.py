"""Renders the batch script of a job: readable, with the reason of each rule beside it (platform.md 4).

One task a rank, started by srun. The script stays outside containers and does what needs `scontrol`: the run saves,
leaves a sentinel in its directory and ends with 0; the script sees the sentinel and requeues.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from mmtok.cluster.config import ClusterConfig


@dataclass(frozen=True, kw_only=True)
class Job:
    """One batch job, or an array of them."""

    name: str
    """In the queue."""
    title: str
    """What the first comment says."""
    folder: str
    """Where `logs/` is."""
    command: str
    """Words after `mmtok`, in shell syntax; may use $run_dir."""
    runs: tuple[str, ...] = ()
    """Run directories, in shell syntax; several make an array, none a job that trains nothing."""
    workdir: str = ""
    """Where it runs; empty means where sbatch is called."""
    code: str = ""
    """Folder of the packages as they were at submission; empty takes the installed ones."""


def render(job: Job, cluster: ClusterConfig) -> str:
    """The script, as text."""
    parts = [
        f"#!/bin/bash\n# {job.title}",
        _directives(job, cluster),
        _setup(cluster),
        "set -euo pipefail",
        _code(job),
        _run_dir(job, cluster),
        _environment(job, cluster),
        _history(job, cluster),
        _launch(job, cluster),
        _requeue(job, cluster),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _directives(job: Job, cluster: ClusterConfig) -> str:
    array = len(job.runs) > 1
    lines = [f"#SBATCH --job-name={job.name}"]
    for option in ("partition", "account", "qos", "constraint"):
        if (value := getattr(cluster, option)) is not None:
            lines.append(f"#SBATCH --{option}={value}")
    lines += [
        f"#SBATCH --time={cluster.time}",
        f"#SBATCH --nodes={cluster.nodes}",
        f"#SBATCH --ntasks-per-node={cluster.tasks}",
    ]
    if cluster.gpus_per_node:
        lines.append(f"#SBATCH --gres=gpu:{cluster.gpus_per_node}")
    lines.append(f"#SBATCH --cpus-per-task={cluster.cpus_per_task}")
    if cluster.memory is not None:
        lines.append(f"#SBATCH --mem={cluster.memory}")
    if array:
        lines.append(f"#SBATCH --array=0-{len(job.runs) - 1}")
    if job.workdir:
        lines.append(f"#SBATCH --chdir={job.workdir}")
    lines.append(f"#SBATCH --output={job.folder}/logs/%x-{'%A_%a' if array else '%j'}.out")
    if job.runs and cluster.requeue:
        lines += [
            "#SBATCH --requeue",
            "# Without this the log would be cut at every restart.",
            "#SBATCH --open-mode=append",
            "# To the tasks, so long before the limit. With `B:` it would reach this shell, and no task.",
            f"#SBATCH --signal=USR1@{cluster.signal_lead}",
        ]
    else:
        lines += ["#SBATCH --no-requeue", "#SBATCH --open-mode=append"]
    return "\n".join([*lines, *(f"#SBATCH {option}" for option in cluster.sbatch)])


def _setup(cluster: ClusterConfig) -> str:
    """Lines of the cluster, before `set -u`: module systems read variables that are not set."""
    lines = [f"module load {shlex.join(cluster.modules)}"] if cluster.modules else []
    lines += cluster.setup
    lines += [f"export {name}={shlex.quote(str(value))}" for name, value in cluster.env.items()]
    return "\n".join(lines)


def _code(job: Job) -> str:
    if not job.code:
        return ""
    return (
        "# The packages as they were at submission: an edit while the job waits or between restarts changes nothing.\n"
        f"export PYTHONSAFEPATH=1 PYTHONPATH={shlex.quote(job.code)}:$PWD${{PYTHONPATH:+:$PYTHONPATH}}"
    )


def _run_dir(job: Job, cluster: ClusterConfig) -> str:
    if not job.runs:
        return ""
    if len(job.runs) == 1:
        return f"run_dir={job.runs[0]}"
    runs = "\n".join(f"    {run}" for run in job.runs)
    return f"runs=(\n{runs}\n)\nrun_dir=${{runs[$SLURM_ARRAY_TASK_ID]}}"


def _environment(job: Job, cluster: ClusterConfig) -> str:
    lines = [
        "# Since SLURM 22.05 srun does not inherit --cpus-per-task: every process of a task would share one core.",
        "export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}",
        "export OMP_NUM_THREADS=$SRUN_CPUS_PER_TASK PYTHONFAULTHANDLER=1",
    ]
    if not job.runs:
        return "\n".join(lines)
    lines += [
        "# Where the ranks meet. Given from outside where the first host's name does not resolve.",
        'export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}',
        "export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}",
        "# Compiled kernels, on the node's own disk: a shared one answers with stale file handles.",
        "scratch=${TMPDIR:-/tmp}/mmtok-$SLURM_JOB_ID",
        'export TRITON_CACHE_DIR="$scratch/triton" TORCHINDUCTOR_CACHE_DIR="$scratch/inductor"',
    ]
    if cluster.gpus_per_node:
        lines += [
            "# A collective that never ends becomes an error, with what each rank was in.",
            "export NCCL_DEBUG=${NCCL_DEBUG:-WARN} TORCH_NCCL_ASYNC_ERROR_HANDLING=1",
            "export TORCH_NCCL_DUMP_ON_TIMEOUT=1 TORCH_FR_BUFFER_SIZE=2000",
            'export TORCH_FR_DUMP_TEMP_FILE="$run_dir/logs/nccl-rank-"',
        ]
    return "\n".join(lines)


_HISTORY = """\
# A line each start, of this job and what was saved by then: for the two limits below, and for `mmtok status`.
mkdir -p "$run_dir/logs"
restarts=${SLURM_RESTART_COUNT:-0}
saved() { stat -c %.9Y "$run_dir/checkpoints/last.ckpt" 2> /dev/null || echo none; }
before=$(saved)
idle=$(tail -n @idle@ "$run_dir/starts" 2> /dev/null | grep -c "^job=$SLURM_JOB_ID .* saved=$before\\$" || true)
if ((restarts > @cap@)); then
    echo "mmtok: restarted $restarts times, which is more than cluster.max_restarts=@cap@. Giving up." >&2
    exit 1
fi
if ((idle >= @idle@)); then
    echo "mmtok: the last @idle@ starts left no new checkpoint. Giving up; see $run_dir/logs." >&2
    exit 1
fi
echo "job=$SLURM_JOB_ID restart=$restarts time=$(date +%s) saved=$before" >> "$run_dir/starts"
rm -f "$run_dir/REQUEUE\""""


def _history(job: Job, cluster: ClusterConfig) -> str:
    if not job.runs:
        return ""
    return _fill(_HISTORY, {"cap": cluster.max_restarts, "idle": cluster.idle_restarts})


def _launch(job: Job, cluster: ClusterConfig) -> str:
    python = shlex.quote(cluster.python or ("python" if cluster.container.kind != "none" else sys.executable))
    inside, options = _container(job, cluster)
    command = f"{inside}{python} -m mmtok {job.command}"
    if not job.runs:
        return f"srun {options}{command}"
    log = '"$run_dir/logs/$SLURM_JOB_NAME-$SLURM_JOB_ID-rank%t.out"'
    return (
        "# A rank that dies takes the others with it at once, instead of leaving them to wait in a collective.\n"
        "status=0\n"
        f"srun --kill-on-bad-exit=1 --open-mode=append --output={log} \\\n"
        f"    {options}{command} || status=$?"
    )


def _container(job: Job, cluster: ClusterConfig) -> tuple[str, str]:
    """(what stands before the interpreter, options of srun)."""
    container = cluster.container
    mounts = [*container.mounts, "$PWD:$PWD", *(["$run_dir:$run_dir"] if job.runs else [])]
    mounts += [f"{job.code}:{job.code}"] if len(job.runs) > 1 else []  # an array's stands beside its runs
    image = shlex.quote(container.image)
    if container.kind == "apptainer":
        gpu = "--nv " if cluster.gpus_per_node else ""
        return f'apptainer exec {gpu}--bind "{",".join(mounts)}" --pwd "$PWD" {image} \\\n    ', ""
    if container.kind == "pyxis":
        where = f'--container-mounts="{",".join(mounts)}" --container-workdir="$PWD"'
        return "", f"--container-image={image} {where} \\\n    "
    return "", ""


_REQUEUE = """\
# The run leaves REQUEUE once its checkpoint is on the disk, and ends with 0: a rank that requeued the job itself would
# kill slower ones while they save. A task that was killed, and an error after a new checkpoint, are tried again, within
# the limits above; an error before one would only come again. TERM is not trapped, so that scancel means the end.
if [[ -f $run_dir/REQUEUE ]]; then
    reason="saved at step $(< "$run_dir/REQUEUE")"
elif ((status > 128)) || { ((status != 0)) && [[ $(saved) != "$before" ]]; }; then
    reason="lost a task or failed (status $status)"
else
    exit "$status"
fi
echo "mmtok: $reason; requeueing @target@"
scontrol requeue "@target@\""""


def _requeue(job: Job, cluster: ClusterConfig) -> str:
    if not job.runs:
        return ""
    if not cluster.requeue:
        return 'exit "$status"'
    if len(job.runs) == 1:
        return _fill(_REQUEUE, {"target": "$SLURM_JOB_ID"})
    note = "# By the id of its task: the raw id of an array's first task would requeue all of them.\n"
    return note + _fill(_REQUEUE, {"target": "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"})


def _fill(text: str, values: Mapping[str, object]) -> str:
    """`@name@` in a piece of shell, which uses braces and dollars itself."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
