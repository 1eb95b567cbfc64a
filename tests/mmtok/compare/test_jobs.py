"""Cells in processes: some at a time, and none left behind."""

import os
import signal
import subprocess
import sys
import time

import pytest

from mmtok.compare import jobs


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


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_no_cell_outlives_its_comparison(tmp_path, how):
    (tmp_path / "a").mkdir()
    code = (
        "import signal, subprocess, sys, pathlib\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the background of a shell ignores it
        "from mmtok.compare import jobs\n"
        "start = subprocess.Popen\n"
        "sleep = 'import os, sys, time, pathlib;'\n"
        "sleep += 'pathlib.Path(sys.argv[1], \"pid\").write_text(str(os.getpid())); time.sleep(60)'\n"
        "jobs.subprocess.Popen = lambda words, **given: start([sys.executable, '-c', sleep, words[-1]], **given)\n"
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
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
