"""A SLURM cluster of two nodes on this machine's loopback: real daemons, own ports, own key, nothing else touched."""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NODES = ("lab1", "lab2")
STEPS = 120
"""Updates of the recipe that the jobs run."""
CONFIG = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge/munge.socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmdPidFile={root}/slurmd.%n.pid
SlurmdLogFile={root}/log/slurmd.%n.log
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/log/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=30
KillWait=20
JobRequeue=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
PlugStackConfig=/dev/null
NodeName=lab[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=4 RealMemory=4000
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Lab:
    """munged, slurmctld and two slurmd, from `start` to `stop`; `environment` is for what talks to them."""

    def __init__(self) -> None:
        # Short: a socket's path has 107 characters at most.
        self.root = Path(tempfile.mkdtemp(prefix="mmtok-slurm-"))
        self.daemons: dict[str, subprocess.Popen] = {}
        self.environment = {"SLURM_CONF": str(self.root / "slurm.conf")}

    def start(self) -> None:
        for name in ("munge", "log", "state", "spool.lab1", "spool.lab2"):
            (self.root / name).mkdir(mode=0o755)
        key = self.root / "munge" / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        text = CONFIG.format(host=socket.gethostname(), user=getpass.getuser(), root=self.root, ports=_free_ports())
        (self.root / "slurm.conf").write_text(text)
        munge = [f"--{name}-file={self.root}/munge/munge.{end}" for name, end in (("pid", "pid"), ("seed", "seed"))]
        munge += [f"--log-file={self.root}/log/munged.log", f"--socket={self.root}/munge/munge.socket"]
        self._run("munged", ["munged", "--foreground", "--force", f"--key-file={key}", *munge])
        wait(lambda: (self.root / "munge" / "munge.socket").exists(), 20, "munged")
        self._run("slurmctld", ["slurmctld", "-D"])
        for node in NODES:
            self.start_node(node)
        wait(lambda: self.ask("sinfo", "-h", "-o", "%T %D").strip() == "idle 2", 60, "two idle nodes", self.log)

    def start_node(self, node: str) -> None:
        self._run(node, ["slurmd", "-D", "-N", node])

    def kill_node(self, node: str, job: str) -> None:
        """As if it lost power: the daemon, the step's manager and the tasks of a job, without a word."""
        tasks = self.tasks(job, node)
        managers = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in tasks}
        daemon = self.daemons.pop(node)
        for pid in (daemon.pid, *managers, *tasks):
            os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def tasks(self, job: str, node: str | None = None) -> list[int]:
        """Training processes of a job's step, of one node or of both; not their loader workers."""
        found = []
        for pid, environment in self._processes():
            here = node is None or f"SLURMD_NODENAME={node}" in environment
            if f"SLURM_JOB_ID={job}" in environment and here and f"SLURM_TASK_PID={pid}" in environment:
                found.append(pid)
        return [pid for pid in found if b"mmtok" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def ask(self, *words: str) -> str:
        """A command of SLURM, and what it says."""
        done = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        return done.stdout

    def job(self, job: str) -> dict[str, str]:
        """The fields of `scontrol show job`."""
        words = self.ask("scontrol", "show", "job", job, "-o").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait_for(self, job: str, state: str, seconds: float = 400) -> dict[str, str]:
        """Until a job is in a state; a requeued one is not left to wait its two minutes."""

        seen: list[float] = []

        def there() -> bool:
            fields = self.job(job)
            held = fields.get("JobState") == "PENDING" and fields.get("Reason") == "BeginTime" and state != "PENDING"
            if held and not seen:
                seen.append(time.monotonic())
            # Not at once: a credential that was revoked in the same second ends the new start, and on a busy machine a
            # kill that was meant for the step before, which has the same number, came a minute late.
            gone = not any(f"SLURM_JOB_ID={job}" in environment for _, environment in self._processes())
            if held and gone and time.monotonic() - seen[0] > 10:
                self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            return fields.get("JobState") == state

        wait(there, seconds, f"job {job} to be {state}", lambda: f"{self.job(job)}\n{self.log()}")
        return self.job(job)

    def log(self) -> str:
        """The end of what the controller wrote."""
        path = self.root / "log" / "slurmctld.log"
        return "\n".join(path.read_text().splitlines()[-30:]) if path.exists() else ""

    def stop(self) -> None:
        """End everything that was started here, by pid."""
        for name in ("slurmctld", *NODES, "munged"):
            if name in self.daemons:
                self.daemons[name].terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
        for pid, _ in self._processes():  # steps outlive their daemon
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.root, ignore_errors=True)

    def _run(self, name: str, words: list[str]) -> None:
        log = (self.root / "log" / f"{name}.out").open("a")
        self.daemons[name] = subprocess.Popen(words, env=os.environ | self.environment, stdout=log, stderr=log)

    def _processes(self) -> list[tuple[int, list[str]]]:
        """(pid, environment) of every process that was started with this cluster's configuration, but this one."""
        mine, found = f"SLURM_CONF={self.root / 'slurm.conf'}", []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                environment = path.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if mine in environment and int(path.parent.name) != os.getpid():
                found.append((int(path.parent.name), environment))
        return found


def wait(happens: Callable[[], bool], seconds: float, what: str, tell: Callable[[], str] = str) -> None:
    """Until something is so.

    Raises:
        TimeoutError: it never was.
    """
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s\n{tell()}")
        time.sleep(0.25)


def _free_ports() -> tuple[int, int, int]:
    """Three ports, the last two side by side, that nobody listens on."""
    for first in range(26800 + os.getpid() % 500 * 3, 29000, 3):
        with socket.socket() as one, socket.socket() as two, socket.socket() as three:
            try:
                for offset, one_socket in enumerate((one, two, three)):
                    one_socket.bind(("127.0.0.1", first + offset))
            except OSError:
                continue
            return first, first + 1, first + 2
    raise OSError("no three free ports between 26800 and 29000")
