"""What a cluster looks like: one readable YAML each (configs/cluster/), from which every job script is rendered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from mmtok.layers import merge_layers
from mmtok.resources import layer_path, recipe_names
from mmtok.schema import ConfigError, parse, suggest

_TIME = re.compile(r"^(?:(\d+)-([01]?\d|2[0-3])(?::([0-5]\d))?(?::([0-5]\d))?|(\d+):([0-5]\d):([0-5]\d))$")
_VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """What the tasks run in. The batch script itself stays outside, where `scontrol` is."""

    kind: Literal["none", "apptainer", "pyxis"] = "none"
    """none runs the interpreter as it is; apptainer by `apptainer exec`; pyxis by srun's --container-image."""
    image: str = ""
    """An image file, or what the runtime takes for one."""
    mounts: tuple[str, ...] = ()
    """`outside:inside`, besides the working directory and the run directory, which are always there."""

    def __post_init__(self) -> None:
        if self.kind != "none" and not self.image:
            raise ConfigError(f"cluster.container.kind={self.kind} needs cluster.container.image.")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """A cluster, and how much of it a job takes."""

    partition: str | int | None = None
    """Queue; null leaves the cluster's default."""
    account: str | int | None = None
    """What is charged. Zeros in front stay."""
    qos: str | int | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that the nodes must have, as sbatch writes them."""
    time: str = "24:00:00"
    """Limit of one start, as HH:MM:SS or D-HH[:MM[:SS]]. A longer run is requeued."""
    nodes: int = 1
    """Machines."""
    gpus_per_node: int = 0
    """GPUs of each node, with one task a GPU; 0 trains on CPUs."""
    tasks_per_node: int = 0
    """Tasks of each node; 0 means one a GPU, or one where there are none."""
    cpus_per_task: int = 8
    """Cores of each task: the training process and its `data.workers`."""
    memory: str | None = None
    """Of each node, as sbatch writes it ("64G"; "0" is all); null leaves the cluster's default."""
    modules: tuple[str, ...] = ()
    """What to `module load`."""
    setup: tuple[str, ...] = ()
    """Shell lines before anything else, for example to activate an environment."""
    env: dict[str, str | int | float] = field(default_factory=dict)
    """Variables of the job: network interfaces and the like belong here, not into a template."""
    sbatch: tuple[str, ...] = ()
    """Further options of sbatch, as on its command line ("--exclude=n17")."""
    python: str = ""
    """Interpreter; empty means the one that submits, in a container `python`."""
    signal_lead: int = 300
    """Seconds before the limit at which the run is told to save: a few updates, a validation, the checkpoint, and the
    minute by which SLURM may be early."""
    requeue: bool = True
    """Go on after the limit, a preemption or the loss of a node, in the same job."""
    max_restarts: int = 100
    """Restarts of one job, whatever their cause."""
    idle_restarts: int = 2
    """Restarts in a row without a new checkpoint after which the job gives up."""
    container: ContainerConfig = field(default_factory=ContainerConfig)
    """What the tasks run in."""

    def __post_init__(self) -> None:
        if seconds(self.time) <= self.signal_lead:
            raise ConfigError(
                f"cluster.signal_lead={self.signal_lead} s is no less than cluster.time={self.time}: the run would be "
                "told to stop at once. Lower signal_lead, or raise time."
            )
        for name in ("nodes", "cpus_per_task", "idle_restarts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"cluster.{name}={getattr(self, name)} must be at least 1.")
        for name in ("gpus_per_node", "tasks_per_node", "signal_lead", "max_restarts"):
            if getattr(self, name) < 0:
                raise ConfigError(f"cluster.{name}={getattr(self, name)} must be at least 0.")
        for name in self.env:
            if not _VARIABLE.match(name):
                raise ConfigError(f"cluster.env.{name} is no name of a variable.")
        for option in self.sbatch:
            if not option.startswith("--"):
                raise ConfigError(f"cluster.sbatch: '{option}' must be written as --option=value.")

    @property
    def tasks(self) -> int:
        """Tasks of each node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def world(self) -> int:
        """Tasks of the job."""
        return self.nodes * self.tasks


def seconds(time: str) -> int:
    """A time limit in seconds.

    Raises:
        ConfigError: it is not written so that a person and SLURM read the same.
    """
    match = _TIME.match(time)
    if match is None:
        # 45000 would be minutes, and 12:30 minutes and seconds: both are mostly hours gone wrong (platform.md 1).
        raise ConfigError(f"cluster.time={time!r} is no time limit. Write HH:MM:SS, or D-HH:MM:SS: '12:30:00', '2-00'.")
    days, hours, minutes, rest, h, m, s = (int(part or 0) for part in match.groups())
    return 86400 * days + 3600 * (hours + h) + 60 * (minutes + m) + rest + s


def cluster_names() -> tuple[str, ...]:
    """The clusters that ship with mmtok, as `--cluster` takes them."""
    return tuple(name.removeprefix("cluster/") for name in recipe_names() if name.startswith("cluster/"))


def load_cluster(name: str, overrides: Sequence[str] = ()) -> ClusterConfig:
    """A cluster by its name in configs/cluster, or from a YAML file; then `key=value`.

    Raises:
        ConfigError: there is none, or something in it is wrong.
    """
    if name.endswith((".yaml", ".yml")):
        path = layer_path(name)
    elif name in cluster_names():
        path = layer_path(f"cluster/{name}")
    else:
        raise ConfigError(f"there is no cluster '{name}'.{suggest(name, cluster_names())} Or give a YAML file.")
    tree = merge_layers([str(path)], overrides)
    if isinstance(tree.get("time"), int):
        tree["time"] = str(tree["time"])  # to be refused with how to write it
    return parse(ClusterConfig, tree, "cluster")
