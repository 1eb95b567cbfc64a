"""Cells in processes: some at a time, and none left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mmtok.compare import jobs
from mmtok.processes import born


def words_of(monkeypatch, code):
    """Cells run this code instead, with their folder as its argument."""
    start = subprocess.Popen

    def popen(words, **given):
        return start([sys.executable, "-c", code, words[-1]], **given)

    monkeypatch.setattr(jobs.subprocess, "Popen", popen)


def folders(tmp_path, count):
    made = [tmp_path / "arm" / f"seed-{number}" for number in range(count)]
    for one in made:
        one.mkdir(parents=True)
    return made


def test_no_more_cells_run_at_a_time_than_asked_for(tmp_path, monkeypatch):
    words_of(
        monkeypatch,
        "import os, sys, time, pathlib\n"
        "home = pathlib.Path(sys.argv[1]).parent\n"
        "(home / f'on-{os.getpid()}').touch()\n"
        "print(len(list(home.glob('on-*'))), os.environ['OMP_NUM_THREADS'])\n"
        "time.sleep(0.5); (home / f'on-{os.getpid()}').unlink()\n",
    )
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cells = folders(tmp_path, 4)
    assert jobs.run_cells(cells, 2, say=lambda line: None) == []
    seen = [int(jobs.last_words(one).split()[0]) for one in cells]
    assert max(seen) <= 2
    assert jobs.last_words(cells[0]).split()[1] == str(max(1, (os.cpu_count() or 1) // 2))


def test_a_cell_that_fails_is_told_with_its_last_words(tmp_path, monkeypatch):
    words_of(monkeypatch, "import sys; print('mmtok: there is no such thing'); sys.exit('1' in sys.argv[1][-1:])")
    said = []
    failed = jobs.run_cells(folders(tmp_path, 2), 1, say=said.append)
    assert [one.folder.name for one in failed] == ["seed-1"]
    assert "there is no such thing" in failed[0].said
    assert any("FAILED" in line for line in said)
    assert "2/2 cells" in said[-1]


def test_the_last_words_of_a_traceback_name_its_file_and_line(tmp_path):
    log = tmp_path / jobs.LOG
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "/a/first.py", line 3, in <module>\n    outer()\n'
        '  File "/a/last.py", line 17, in outer\n    raise RuntimeError("boom")\n'
        "RuntimeError: boom\nand more of it\n"
    )
    log.write_text("step 3\n" + traceback)
    assert jobs.last_words(tmp_path) == f"RuntimeError: boom, at /a/last.py, line 17 ({log})"
    log.write_text(traceback + "mmtok: data.shards=x is not there.\n")  # of a later call
    assert jobs.last_words(tmp_path) == f"mmtok: data.shards=x is not there. ({log})"
    log.write_text(traceback + "step 3\n" * 30)
    assert jobs.last_words(tmp_path) == f"step 3 ({log})"


@pytest.mark.parametrize(
    "how",
    [
        signal.SIGINT,
        signal.SIGTERM,
        pytest.param(
            signal.SIGKILL,
            marks=pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells a child"),
        ),
    ],
)
def test_no_cell_outlives_its_comparison(tmp_path, how):
    (tmp_path / "a").mkdir()
    code = (
        "import signal, subprocess, sys, pathlib\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the background of a shell ignores it
        "from mmtok.compare import jobs\n"
        "start = subprocess.Popen\n"
        "sleep = 'import os, sys, time, pathlib; from mmtok.processes import end_with;'\n"
        "sleep += 'end_with(int(sys.argv[sys.argv.index(\"--parent\") + 1]));'\n"
        "sleep += 'pathlib.Path(sys.argv[-1], \"pid\").write_text(str(os.getpid())); time.sleep(60)'\n"
        "jobs.subprocess.Popen = lambda words, **given: start([sys.executable, '-c', sleep, *words[3:]], **given)\n"
        "jobs.run_cells([pathlib.Path(sys.argv[1])], 1)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stderr=subprocess.DEVNULL)
    pid = tmp_path / "a" / "pid"
    for _ in range(600):
        if pid.is_file() and pid.read_text():
            break
        time.sleep(0.05)
    child = int(pid.read_text())
    parent.send_signal(how)
    assert parent.wait(30) != 0
    for _ in range(200):  # after SIGKILL nobody waits for it
        if born(child) < 0:
            break
        time.sleep(0.05)
    assert born(child) < 0


def test_a_process_whose_parent_is_gone_already_ends_at_once():
    code = "import time; from mmtok.processes import end_with; end_with(1 << 30); time.sleep(60)"
    child = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert child.returncode == (-signal.SIGTERM if sys.platform.startswith("linux") else 0)
