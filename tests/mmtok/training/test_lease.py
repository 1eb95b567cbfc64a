"""One process at a time in a run directory: who is refused, and who may take over."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mmtok.training import lease as under_test
from mmtok.training.lease import Lease, LeaseLost, read_lease
from mmtok.training.run import train

ROOT = Path(__file__).parents[3]
HOLD = """
import sys, time
from pathlib import Path
from mmtok.training.lease import Lease
Lease(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(600 if sys.argv[2] == "stay" else 0)
"""


def holding(run_dir, how="stay"):
    """A process of its own that holds the run directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run_dir), how], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout.readline() == "held\n"
    return process


def held_by(run_dir, *, silent=0.0, **changes):
    """A lease as another process would have left it."""
    other = replace(Lease(run_dir).mine, token="other", **changes)
    run_dir.mkdir(exist_ok=True)
    (run_dir / "lease").write_text(json.dumps(asdict(other)))
    os.utime(run_dir / "lease", (time.time() - silent,) * 2)


ELSEWHERE = {"host": "node7", "machine": "another kernel", "pid": 4567}


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    first = holding(tmp_path)
    with pytest.raises(
        ValueError, match=rf"in use by process {first.pid} on .*stop it \(kill {first.pid}\), or give run_dir"
    ):
        Lease(tmp_path).acquire()
    first.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # dead, and a zombie: nobody has waited for it yet
    second = Lease(tmp_path)
    second.acquire()
    assert read_lease(tmp_path).pid == os.getpid()
    second.release()
    assert read_lease(tmp_path) is None
    first.wait()


def test_the_heartbeat_does_not_keep_a_process_alive(tmp_path):
    assert holding(tmp_path, "leave").wait(timeout=30) == 0


def test_a_pid_that_was_given_out_again_holds_nothing(tmp_path):
    held_by(tmp_path, born=1)
    Lease(tmp_path).acquire()
    assert read_lease(tmp_path).born != 1


def test_a_holder_elsewhere_is_believed_for_two_minutes(tmp_path):
    held_by(tmp_path, silent=100, **ELSEWHERE)
    with pytest.raises(
        ValueError, match=r"process 4567 on node7, heard of 100 s ago.*lapses in (20|19) s; at once by: rm"
    ):
        Lease(tmp_path).acquire()
    held_by(tmp_path, silent=121, **ELSEWHERE)
    Lease(tmp_path).acquire()
    assert read_lease(tmp_path).pid == os.getpid()


@pytest.mark.parametrize(("job", "restart", "comes_in"), [("12", 1, True), ("12", 0, False), ("13", 1, False)])
def test_a_requeued_job_comes_in_at_once(tmp_path, job, restart, comes_in):
    held_by(tmp_path, job="12", restart=0, **ELSEWHERE)
    lease = Lease(tmp_path, {"SLURM_JOB_ID": job, "SLURM_RESTART_COUNT": str(restart)})
    if comes_in:
        lease.acquire()
        assert read_lease(tmp_path).token == lease.mine.token
    else:
        with pytest.raises(ValueError, match=r"job 12, process 4567 on node7.*stop it \(scancel 12\)"):
            lease.acquire()


def test_the_heart_beats_and_notices_who_took_over(tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "BEAT", 0.05)
    lease = Lease(tmp_path)
    lease.acquire()
    os.utime(tmp_path / "lease", (0, 0))
    time.sleep(0.5)
    assert time.time() - read_lease(tmp_path).heartbeat < 60
    lease.check()
    held_by(tmp_path, **ELSEWHERE)
    time.sleep(0.5)
    assert lease.lost
    with pytest.raises(LeaseLost, match="took this run over"):
        lease.check()
    lease.release()
    assert read_lease(tmp_path).token == "other"


def test_of_many_that_find_a_stale_lease_one_gets_it(tmp_path):
    held_by(tmp_path, silent=500, **ELSEWHERE)
    contend = HOLD.replace('Lease(Path(sys.argv[1])).acquire()\nprint("held", flush=True)', """
try:
    Lease(Path(sys.argv[1])).acquire()
except ValueError:
    sys.exit(3)
print("held", flush=True)""")  # fmt: skip
    words = [sys.executable, "-c", contend, str(tmp_path), "stay"]
    processes = [subprocess.Popen(words, stdout=subprocess.DEVNULL, cwd=ROOT) for _ in range(4)]
    deadline = time.monotonic() + 60
    while sum(process.poll() is not None for process in processes) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [process for process in processes if process.poll() is None]
    assert [process.pid for process in left] == [read_lease(tmp_path).pid]
    assert {process.returncode for process in processes if process not in left} == {3}
    for process in left:
        process.kill()
        process.wait()


def test_a_torn_lease_is_nobodys(tmp_path):
    (tmp_path / "lease").write_text('{"host": "no')
    Lease(tmp_path).acquire()
    assert read_lease(tmp_path).pid == os.getpid()


def test_a_run_holds_its_directory_and_gives_it_back(tiny, tmp_path):
    held = []
    run = train(tiny(), lambda line: held.append(read_lease(tmp_path / "run")))
    assert {holder.pid for holder in held} == {os.getpid()}
    assert read_lease(run) is None
    first = holding(run)
    with pytest.raises(ValueError, match=f"in use by process {first.pid}"):
        train(tiny(), held.append)
    first.kill()
    first.wait()
    train(tiny(trainer={"max_steps": 7}), held.append)


def test_a_run_that_was_taken_over_saves_nothing(tiny, tmp_path):
    def take_over(line):
        if line.startswith("validation at step 3"):
            held_by(tmp_path / "run", **ELSEWHERE)

    with pytest.raises(OSError, match="took this run over"):
        train(tiny(), take_over)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["last.ckpt", "step-2.ckpt"]


def test_a_full_disk_is_refused_and_left_as_it_was(tiny, tmp_path, monkeypatch):
    """Folders and empty files can be made there; only content finds no room."""

    def full(self, text, **kwargs):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ValueError, match=r"run_dir=.*/deep/run cannot be written \(No space left on device\)"):
            train(tiny(run_dir=str(tmp_path / "new" / "deep" / "run")), lambda line: None)
    assert not (tmp_path / "new").exists()


def test_a_read_only_run_directory_is_a_message(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(under_test, "_alone", lambda path: (tmp_path / "no" / "such").open("w"))
    with pytest.raises(
        ValueError, match=r"run_dir=.*run cannot be written \(No such file or directory\)\. Give run_dir="
    ):
        train(tiny(), print)
