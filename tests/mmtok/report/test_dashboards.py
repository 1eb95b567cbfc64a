import json

import pytest

from mmtok.cli import main

PICTURES, SOUNDS = "pictures/input_output_codes", "sounds/output"


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("HOME", str(tmp_path))


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_gets_curves_figures_shares_and_pictures(comparison, tmp_path, capsys):
    board = tmp_path / "board"
    assert main(["report", str(comparison), "--quick", "--tensorboard", str(board)]) == 0, capsys.readouterr().err
    events = events_of(board / "vq_seed_0")
    assert [one.value for one in events.Scalars("figure/psnr")] == [25.0]
    assert len(events.Scalars("val/psnr")) == 29
    shares = [(one.step, one.value) for one in events.Scalars("usage/share_by_rank/level-1")]
    assert shares == [(1, 2.0), (2, 1.5), (3, 0.5)]  # the fourth code never occurred
    assert [one.step for one in events.Images(PICTURES)] == [0, 1]
    assert "_hparams_/session_start_info" in events.summary_metadata
    texts = events_of(board / "report").Tags()["tensors"]
    assert {"verdict/text_summary", "figures/bits/text_summary"} <= set(texts)


def test_tensorboard_gets_the_verdict_without_markup(comparison, tmp_path, capsys):
    board = tmp_path / "board"
    assert main(["report", str(comparison), "--quick", "--tensorboard", str(board)]) == 0, capsys.readouterr().err
    said = events_of(board / "report").Tensors("verdict/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "PSNR" in said
    assert "<b>fsq</b>" in said  # the arm's own name
    assert "<span" not in said


def test_a_trained_run_shows_its_codes_beside_its_pictures(run, tmp_path, capsys):
    board = tmp_path / "board"
    words = ["report", str(run), "-o", str(tmp_path / "p.html"), "--items", "2", "--tensorboard", str(board)]
    assert main(words) == 0, capsys.readouterr().err
    events = events_of(next(one for one in board.iterdir() if one.name != "report"))
    first = events.Images(PICTURES)[0]
    assert first.width == 3 * first.height  # input, output, map


def test_sounds_are_heard_and_seen(make_comparison, tmp_path, capsys):
    home, board = make_comparison(tmp_path / "tones", sounds=True), tmp_path / "board"
    assert main(["report", str(home), "--quick", "--tensorboard", str(board)]) == 0, capsys.readouterr().err
    events = events_of(board / "vq_seed_0")
    assert [one.sample_rate for one in events.Audio(SOUNDS)] == [8000, 8000]
    assert len(events.Images("spectrograms/input")) == 2


def test_a_folder_that_holds_something_is_refused_before_the_page(comparison, tmp_path, capsys):
    (tmp_path / "old").write_text("mine")
    assert main(["report", str(comparison), "--quick", "--tensorboard", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert not (comparison / "report.html").exists()


def test_nobody_logged_in_is_told_before_the_page(comparison, tmp_path, monkeypatch, capsys):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert main(["report", str(comparison), "--quick", "--wandb", "tokens"]) == 2
    assert "WANDB_MODE=offline" in capsys.readouterr().err
    assert not (comparison / "report.html").exists()


@pytest.mark.usefixtures("offline")
def test_wandb_gets_page_tables_and_charts(comparison, tmp_path, capsys):
    assert main(["report", str(comparison), "--quick", "--wandb", "tokens"]) == 0, capsys.readouterr().err
    assert "wandb sync" in capsys.readouterr().out
    [folder] = (comparison / "wandb").glob("offline-run-*")
    names = {str(path.relative_to(folder / "files")) for path in (folder / "files").rglob("*") if path.is_file()}
    kinds = {name.split("/")[-1].split("_")[0] for name in names}
    assert {"page", "figures", "pictures"} <= kinds, names
    [table] = [folder / "files" / name for name in names if "/figures_" in name]
    held = json.loads(table.read_text())
    assert held["columns"][:4] == ["run", "arm", "seed", "psnr"]
    assert len(held["data"]) == 6
