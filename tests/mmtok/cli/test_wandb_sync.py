"""The verb against a server of our own; the pieces are W&B's, one of them as a killed process leaves it."""

import os

import pytest

from mmtok.cli import main
from mmtok.cli.wandb_sync import ready, waiting
from mmtok.training.logs import WandbConfig
from mmtok.training.wandb_pieces import Piece, Row, read_pieces
from mmtok.training.wandb_sink import WandbSink
from tests.mmtok.training.wandb_server import Server


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def server(monkeypatch):
    one = Server()
    monkeypatch.setenv("WANDB_BASE_URL", one.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    yield one
    one.close()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A run directory after two starts, of which the first was killed."""
    folder = tmp_path_factory.mktemp("wandb") / "run"
    for steps in ((10, 20, 30, 40), (30, 40, 50)):
        sink = WandbSink(WandbConfig(mode="offline", artifacts="none"), folder, {}, say=lambda line: None)
        for step in steps:
            sink.scalars(step, {"loss": 1 / step})
        sink.close()
        if len(steps) == 4:
            (piece,) = read_pieces(folder)
            whole = _end_of_row(piece, 3)
            os.truncate(piece.file, whole + 9)
    return folder


def _end_of_row(piece, count):
    from mmtok.training.wandb_pieces import records

    data = piece.file.read_bytes()
    return [end for record, end in records(data) if record.WhichOneof("record_type") == "history"][count - 1]


def test_nobody_logged_in_is_refused_with_the_remedy(tmp_path, capsys):
    assert main(["wandb-sync", str(tmp_path)]) == 2
    assert "Run 'wandb login' or set WANDB_API_KEY" in capsys.readouterr().err
    assert main(["wandb-sync", str(tmp_path / "nowhere"), "--dry-run"]) == 2


def test_the_pieces_are_uploaded_once_and_in_order(pieces, server, capfd):
    assert main(["wandb-sync", str(pieces), "--dry-run"]) == 0
    told = [line for line in capfd.readouterr().out.splitlines() if "wandb:" not in line]
    assert told[0] == f"{pieces}: 2 of 2 pieces to upload"
    assert told[1].startswith("  1  offline-run-")
    assert told[1].endswith("3 rows, steps 10 to 30, cut off")
    assert told[2].endswith("2 rows, steps 40 to 50")
    assert not server.rows

    assert main(["wandb-sync", str(pieces)]) == 0
    assert [(row["_step"], row["trainer/global_step"]) for row in server.rows] == [*enumerate((10, 20, 30, 40, 50))]
    assert [row["restart"] for row in server.rows] == [0, 0, 0, 1, 1]
    capfd.readouterr()

    assert main(["wandb-sync", str(pieces)]) == 0
    assert f"{pieces}: 0 of 2 pieces to upload" in capfd.readouterr().out
    assert len(server.rows) == 5


ROWS = (Row(1, 0, 0, ("loss",)),)


def piece(folder, *, rows=ROWS, synced=False):
    (file := folder / "run-x.wandb").parent.mkdir(parents=True)
    one = Piece(file, "x", 0.0, rows, (), ended=True, whole=0)
    if synced:
        one.marker.touch()
    return one


def test_of_the_online_pieces_only_the_last_is_sent_again(tmp_path):
    first, second = piece(tmp_path / "run-1-x"), piece(tmp_path / "run-2-x")
    empty = piece(tmp_path / "run-3-x", rows=())  # a start that did not reach the server
    offline = piece(tmp_path / "offline-run-4-x")
    assert waiting([first, second, empty, offline]) == [second, offline]
    later = piece(tmp_path / "offline-run-5-x", synced=True)
    assert waiting([second, offline, later]) == [offline]
    assert waiting([piece(tmp_path / "run-6-x", synced=True)]) == []


def test_a_piece_that_is_being_written_is_left(tmp_path):
    first, second = piece(tmp_path / "offline-run-1-x"), piece(tmp_path / "offline-run-2-x")
    online = piece(tmp_path / "run-3-x")
    assert ready([first, second], in_use=False) == ([first, second], "")
    kept, line = ready([first, second], in_use=True)
    assert kept == [first]
    assert "its newest piece is left for later" in line
    kept, line = ready([first, online], in_use=True)
    assert not kept
    assert "when it is done" in line
