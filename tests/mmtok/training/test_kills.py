"""A run that is killed at 15 moments ends as one that is not, for 1 and 2 ranks and 0 and 2 loader workers: of pictures
in all four settings, of sounds, texts, vectors, rows of tokens and taught codes in two of them. (Without an adversary
there are 13.)

How, and with what, is `benchmarks/kills.py`; what a change of ranks or workers does, `benchmarks/changes.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.changes import SERIES
from benchmarks.kills import CASES, SETTINGS, timeline

ROOT = Path(__file__).parents[3]
HEAD = "import json, pathlib, sys; out = pathlib.Path(sys.argv[1]); from benchmarks."


def measured(out, code):
    """What a fresh process finds, which nobody has started threads in: it forks."""
    words = [sys.executable, "-c", HEAD + code, str(out)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "world", "workers"),
    [
        *(("gan", *pair) for pair in SETTINGS),
        *((case, *pair) for case in CASES if case != "gan" for pair in ((1, 2), (2, 0))),
    ],
)
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, case, world, workers):
    arguments = f"out, {world}, {workers}, 0, '{case}'"
    code = f"kills import prepare, run_setting; prepare(out); print(json.dumps(run_setting({arguments})))"
    found = measured(tmp_path, code)
    assert len(found["kills"]) == (15 if case in ("gan", "audio") else 13)
    assert all(kill["to"] > kill["before"] for kill in found["kills"])
    assert found["differ"] == []
    assert found["rows_differ"] == []
    assert (found["lost"], found["repeated"]) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(SERIES)))
def test_a_change_of_ranks_or_workers_loses_and_repeats_nothing(tmp_path, number):
    found = measured(tmp_path, f"changes import *; prepare(out); print(json.dumps(run_series(out, {number})))")
    assert (found["lost"], found["repeated"], found["other"]) == (0, 0, 0)
    if len({world for world, _ in SERIES[number]}) == 1:
        assert found["differ"] == 0
    assert found["apart"] < 1e-5


def test_a_batch_that_is_lost_or_repeated_would_be_seen(tmp_path):
    log = tmp_path / "rank0.log"
    log.write_text("0 0 a\n0 1 b\n0 2 c\n1 1 b\n1 2 c\n1 3 d\n")
    assert timeline(log) == (["a", "b", "c", "d"], 2)
    log.write_text("0 0 a\n0 1 b\n1 3 d\n")
    with pytest.raises(AssertionError, match="life 1 begins at 3, after a gap"):
        timeline(log)
