"""What SLURM and the kernel gave this one process, looked at before it trains (platform.md 2.18, 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mmtok.schema import ConfigError

_INTERACTIVE = ("bash", "interactive")
"""Names of jobs that Lightning takes for a shell in which nobody trains on several tasks."""


def check_task(environment: Mapping[str, str], devices: int | str, nodes: int) -> None:
    """Refuse what a script of one's own may get wrong, and Lightning meets with a traceback, a hang, or worse.

    Args:
        environment: of the process.
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.

    Raises:
        ConfigError: the tasks of the job would not find each other; with what to write instead.
    """
    step = int(environment.get("SLURM_STEP_NUM_TASKS") or 1)
    if environment.get("SLURM_JOB_NAME") in _INTERACTIVE:
        if step > 1:  # each would be the first rank of a run of its own, in one and the same folder
            name = environment["SLURM_JOB_NAME"]
            raise ConfigError(
                f"this is one of {step} tasks of a SLURM job named '{name}', by which Lightning takes it for a shell "
                "and each task for a run of its own. Before srun: export SLURM_JOB_NAME=mmtok"
            )
        return
    if "SLURM_NTASKS" not in environment:
        return
    tasks = int(environment["SLURM_NTASKS"])
    if "SLURM_PROCID" not in environment or step < tasks:
        raise ConfigError(
            f"this process is in a SLURM job of {tasks} tasks, and srun did not start it: it would wait for the others "
            "for ever. Write 'srun' in front of the command; or, to train here alone: env -u SLURM_NTASKS mmtok ..."
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environment:
        raise ConfigError(
            f"the SLURM job has --ntasks={tasks} without --ntasks-per-node, which leaves open how many tasks a node "
            "has. Write --nodes=N --ntasks-per-node=M in place of --ntasks."
        )
    found = {
        "devices": (environment.get("SLURM_NTASKS_PER_NODE"), devices),
        "num_nodes": (environment.get("SLURM_NNODES"), nodes),
    }
    for key, (given, asked) in found.items():
        if given is not None and asked != "auto" and int(given) != int(asked):
            what = "tasks on each node" if key == "devices" else "nodes"
            raise ConfigError(
                f"the SLURM job has {given} {what}, and trainer.{key}={asked}. Give trainer.{key}={given}."
            )


def core_lines(environment: Mapping[str, str], cores: int, workers: int, threads: int) -> Iterator[str]:
    """Lines for the person where a process may use fewer cores than it was promised, or than it will ask for.

    Args:
        environment: of the process.
        cores: it may use, `len(os.sched_getaffinity(0))`.
        workers: `data.workers`.
        threads: `trainer.threads`; 0 takes what there is.
    """
    promised = int(environment.get("SLURM_CPUS_PER_TASK") or 0)
    if promised > cores:
        yield (
            f"SLURM gives a task {promised} cores, and this process may use {cores}: since SLURM 22.05 srun does not "
            f"pass --cpus-per-task on. Before srun: export SRUN_CPUS_PER_TASK={promised}"
        )
    elif workers + max(threads, 1) > cores:
        asked = f"data.workers={workers} and " + (f"trainer.threads={threads}" if threads else "the training process")
        yield f"{asked} share {cores} cores. Lower them, or give a process more cores (cluster.cpus_per_task)."
