import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig, WandbConfig
from mmtok.training.wandb_pieces import Piece, Row, logged, read_pieces, records
from mmtok.training.wandb_sink import WandbSink, check_wandb, stored_id, wandb_logged_in
from tests.mmtok.training.wandb_server import Server

SETTINGS = {"seed": 0, "data": {"batch_size": 4}}
DATASET = {"digest": "d" * 64, "samples": 100, "sets": [{"path": "set", "samples": 100}]}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No keys, settings or servers of whoever runs the tests."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    yield
    import wandb

    wandb.teardown()


@pytest.fixture
def server(monkeypatch):
    """server(mood) -> a server that W&B is sent to."""
    started = []

    def start(mood="good"):
        started.append(Server(mood))
        monkeypatch.setenv("WANDB_BASE_URL", started[-1].url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        return started[-1]

    yield start
    for one in started:
        one.close()


def start(run_dir, step=0, lines=None, **block):
    block = {"mode": "offline"} | block
    say = lambda line: None if lines is None else lines.append(line)  # noqa: E731
    log = RunLog(LogConfig(tensorboard=False, wandb=WandbConfig(**block)), run_dir, SETTINGS, say)
    log.open(step, DATASET)
    return log


def contents(run_dir, kind):
    """The records of one kind, piece by piece."""
    parsed = [[record for record, _ in records(piece.file.read_bytes())] for piece in read_pieces(run_dir)]
    return [[getattr(one, kind) for one in piece if one.WhichOneof("record_type") == kind] for piece in parsed]


def history(run_dir):
    """The rows of each piece, as W&B would show them."""
    return [
        [{item.key or item.nested_key[0]: json.loads(item.value_json) for item in row.item} for row in piece]
        for piece in contents(run_dir, "history")
    ]


def points(rows):
    """(name, step) of everything in some rows, in order."""
    axes = {"restart", "samples", "epoch", "trainer/global_step"}
    return [
        (name, row["trainer/global_step"]) for row in rows for name in row if name not in axes and name[0] != "_"
    ]  # fmt: skip


def train(log, first, last):
    """What a run logs from an update to another."""
    for step in range(first, last + 1, 10):
        log.scalars(step, {"usage/active": 0.5})
        log.histogram(step, "usage/log10_share", np.zeros(8))
        log.scalars(step, {"loss": 1 / step, "samples": 4.0 * step})
        if step % 20 == 0:
            log.image(step, "media/reconstruction", np.zeros((4, 4, 3), np.uint8))
    log.close()


def test_two_pieces_with_an_overlap_hold_everything_once(tmp_path):
    """platform.md 5: offline ignores `resume`, so each restart leaves one more piece of the same id."""
    (tmp_path / "checkpoints").mkdir()
    torch.save({"global_step": 20}, tmp_path / "checkpoints" / "last.ckpt")
    train(start(tmp_path, 0), 10, 40)
    train(start(tmp_path, 20), 30, 60)
    first, second = history(tmp_path)
    assert {row["restart"] for row in first} == {0}
    assert {row["restart"] for row in second} == {1}
    found = points(first + second)
    assert len(found) == len(set(found))
    steps = range(10, 61, 10)
    assert [step for name, step in found if name == "loss"] == [*steps]
    assert [step for name, step in found if name == "usage/log10_share"] == [*steps]
    assert [step for name, step in found if name == "media/reconstruction"] == [20, 40, 60]
    assert all(row["samples"] == 4 * row["trainer/global_step"] for row in first + second)
    assert second[-1]["epoch"] == 2.4
    assert {piece.run_id for piece in read_pieces(tmp_path)} == {stored_id(tmp_path)}
    _assert_axes(tmp_path)
    _assert_lineage(tmp_path)


def _assert_axes(run_dir):
    for piece in contents(run_dir, "metric"):
        assert {"trainer/global_step", "restart", "samples", "epoch"} <= {metric.name for metric in piece}
        assert any((metric.glob_name, metric.step_metric) == ("*", "trainer/global_step") for metric in piece)
    # Without this mark W&B's sync writes each piece over the one before.
    assert all(run.resume for piece in contents(run_dir, "run") for run in piece[:1])


def _assert_lineage(run_dir):
    name = stored_id(run_dir)
    first, second = (
        [(one.type, one.name, sorted(one.aliases), one.use_after_commit) for one in piece]
        for piece in contents(run_dir, "artifact")
    )
    sources = [
        ("config", f"config-{name}", ["latest"], True), ("dataset", f"dataset-{'d' * 16}", ["latest"], True),
    ]  # fmt: skip
    assert first == [*sources, ("model", f"checkpoint-{name}", ["latest", "step-20"], False)]
    assert second == sources  # the checkpoint is known
    (checkpoint,) = [one for one in contents(run_dir, "artifact")[0] if one.type == "model"]
    assert json.loads(checkpoint.metadata)["step"] == 20
    (entry,) = checkpoint.manifest.contents
    facts = json.loads((run_dir / entry.local_path).read_text())
    assert facts["path"].endswith("step-20.ckpt")
    assert run_dir in (run_dir / entry.local_path).parents


def test_rows_that_died_with_the_process_are_logged_by_the_next_start(tmp_path):
    """W&B writes blocks of 32 KiB: what a killed process logged last is in metrics.csv alone."""
    train(start(tmp_path, artifacts="none"), 10, 40)
    (piece,) = read_pieces(tmp_path)
    ends = [end for record, end in records(piece.file.read_bytes()) if record.WhichOneof("record_type") == "history"]
    with piece.file.open("r+b") as file:
        file.truncate(ends[3] + 5)  # in the middle of a record, after the usage of step 20
    train(start(tmp_path, 30, artifacts="none"), 40, 50)
    first, second = history(tmp_path)
    assert len(first) == 4
    found = points(first + second)
    assert len(found) == len(set(found))
    assert [step for name, step in found if name == "loss"] == [10, 20, 30, 40, 50]
    assert [step for name, step in found if name == "usage/active"] == [10, 20, 30, 40, 50]


def test_checkpoints_are_logged_whole_where_that_is_asked_for(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.ckpt"
    torch.save({"global_step": 10}, last)
    log = start(tmp_path, artifacts="checkpoints")
    log.scalars(10, {"loss": 1.0})
    content = last.read_bytes()
    last.unlink()
    torch.save({"global_step": 20}, last)
    log.close()
    models = [one for one in contents(tmp_path, "artifact")[0] if one.type == "model"]
    assert [sorted(one.aliases) for one in models] == [["latest", "step-10"], ["latest", "step-20"]]
    (file,) = [entry for entry in models[0].manifest.contents if entry.path == "step-10.ckpt"]
    with open(file.local_path, "rb") as held:
        assert held.read() == content  # though another took its name


@pytest.mark.parametrize(
    "mood", ["hangs", "401", *(pytest.param(m, marks=pytest.mark.slow) for m in ("500", "closed"))]
)
def test_without_a_server_the_run_goes_on_offline_under_the_same_id(tmp_path, server, mood):
    asked = server("500" if mood == "closed" else mood)
    if mood == "closed":
        asked.close()
    lines, began = [], time.monotonic()
    log = start(tmp_path, lines=lines, mode="online", timeout=1.0, artifacts="none")
    log.scalars(10, {"loss": 1.0})
    log.close()
    assert time.monotonic() - began < 60
    assert lines[0].startswith("WARNING: W&B cannot be reached (")
    assert lines[1].endswith(f"mmtok wandb-sync {tmp_path}")
    piece = read_pieces(tmp_path)[-1]
    assert not piece.online
    assert piece.run_id == stored_id(tmp_path)
    assert [row.step for row in piece.rows] == [10]


def test_a_server_that_is_lost_on_the_way_neither_stops_nor_holds_up_the_run(tmp_path, server):
    site, lines = server(), []
    log = start(tmp_path, lines=lines, mode="online", timeout=2.0, artifacts="none")
    log.scalars(10, {"loss": 1.0})
    site.mood = "hangs"
    began = time.monotonic()
    train(log, 20, 40)
    assert time.monotonic() - began < 60
    assert "W&B has not got everything" in lines[-1]
    assert "mmtok wandb-sync" in lines[-1]
    (piece,) = read_pieces(tmp_path)
    assert piece.online
    assert not piece.marker.exists()


def test_online_what_did_not_reach_the_server_is_logged_again(tmp_path, server):
    site, lines = server(), []
    log = start(tmp_path, lines=lines, mode="online", artifacts="none")
    train(log, 10, 30)
    assert not lines
    assert read_pieces(tmp_path)[0].marker.exists()
    del site.rows[5:]  # as if the process had died before it sent them
    train(start(tmp_path, 20, mode="online", artifacts="none"), 30, 40)
    found = points(site.rows)
    assert len(found) == len(set(found))
    assert [step for name, step in found if name == "loss"] == [10, 20, 30, 40]
    assert [row["restart"] for row in site.rows] == sorted(row["restart"] for row in site.rows)


def test_a_failure_of_wandb_is_told_once_and_the_run_goes_on(tmp_path, monkeypatch):
    lines = []
    log = start(tmp_path, lines=lines, artifacts="none")
    (sink,) = [one for one in log._sinks if isinstance(one, WandbSink)]

    def gone(row):
        raise ConnectionResetError("its process is gone")

    monkeypatch.setattr(sink.run, "log", gone)
    train(log, 10, 20)
    assert len([line for line in lines if "its process is gone" in line]) == 1
    assert "10," in (tmp_path / "metrics.csv").read_text()


def children():
    """Processes that this one has started: W&B's."""
    return [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize(("number", "survives"), [(signal.SIGUSR1, True), (signal.SIGTERM, False)])
def test_a_signal_to_all_processes_of_a_job_does_not_reach_the_run_through_wandb(
    tmp_path, server, mode, number, survives
):
    """platform.md 4: srun signals every process of a step. W&B's own dies of TERM."""
    server()
    before, lines = children(), []
    log = start(tmp_path, lines=lines, mode=mode, artifacts="none", timeout=2.0)
    log.scalars(10, {"loss": 1.0})
    (process,) = {*children()} - {*before}
    os.kill(process, number)
    time.sleep(0.3)
    train(log, 20, 40)
    assert any("W&B failed" in line for line in lines) != survives
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5
    train(start(tmp_path, 40, mode="offline", artifacts="none"), 50, 50)
    found = {step for rows in history(tmp_path) for name, step in points(rows) if name == "loss"}
    assert found == {10, 20, 30, 40, 50}


def test_a_run_trains_on_where_wandb_cannot_even_write_offline(tmp_path, monkeypatch):
    import wandb

    def broken(**settings):
        raise OSError("no process can be started")

    monkeypatch.setattr(wandb, "init", broken)
    lines = []
    log = start(tmp_path, lines=lines)
    log.scalars(10, {"loss": 1.0})
    log.close()
    assert lines == ["WARNING: W&B cannot be started (no process can be started). The run goes on without it."]
    assert "10," in (tmp_path / "metrics.csv").read_text()


def test_a_piece_counts_up_to_where_the_next_one_went_on(tmp_path):
    def piece(name, *rows):
        return Piece(tmp_path / name / "run-x.wandb", "x", 0.0, rows, (), ended=False, whole=0)

    first = piece("run-1-x", Row(10, 0, 0, ("a", "b")), Row(20, 1, 0, ("a",)), Row(20, 2, 0, ("b",)))
    second = piece("run-2-x", Row(20, 2, 1, ("b", "c")), Row(30, 3, 1, ("b",)))
    offline = piece("offline-run-3-x", Row(40, 0, 2, ("a",)))
    assert logged([first]) == {"a": 20, "b": 20}
    assert logged([first], arrived=1) == {"a": 10, "b": 10}
    assert logged([first, second], arrived=3) == {"a": 20, "b": 20, "c": 20}
    assert logged([first, second, offline], arrived=2) == {"a": 40, "b": 10}


def test_the_id_is_made_once(tmp_path):
    assert stored_id(tmp_path) == stored_id(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))


def test_online_without_a_login_is_refused_before_training_with_the_remedy(tmp_path):
    with pytest.raises(ValueError, match=r"wandb login.*logger/wandb_offline"):
        RunLog(LogConfig(tensorboard=False, wandb=WandbConfig()), tmp_path)


def test_the_environment_decides_over_the_mode(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_wandb(WandbConfig(mode="online"))


def test_a_key_is_found_in_the_environment_and_in_netrc(tmp_path, monkeypatch):
    assert not wandb_logged_in()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x\n")
    assert wandb_logged_in()
    os.unlink(tmp_path / "netrc")
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert wandb_logged_in()


def test_sounds_are_logged_once_and_can_be_played(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for begin in (0, 20):  # a restart from before the second sound
        log = start(tmp_path, begin)
        for step in (20, 40):
            log.sound(step, "media/0_reconstruction", np.full((800, 1), 0.25, np.float32), 8000)
        log.close()
    played = [step for rows in history(tmp_path) for name, step in points(rows) if name == "media/0_reconstruction"]
    assert played == [20, 40]
    samples, rate = soundfile.read(next(tmp_path.glob("wandb/*/files/media/audio/**/*.wav")))
    assert (rate, len(samples)) == (8000, 800)
    assert samples[0] == pytest.approx(0.25, abs=1e-4)


def test_texts_arrive_as_they_are_written(tmp_path):
    log = start(tmp_path)
    log.text(20, "media/reconstruction", "one <b>\n  two")
    log.close()
    page = next(tmp_path.glob("wandb/*/files/media/html/**/*.html")).read_text()
    assert "<pre>one &lt;b&gt;\n  two</pre>" in page
