import os
import struct
import time

import numpy as np
import pytest

from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig, WandbConfig
from mmtok.training.wandb_sink import check_wandb, stored_id, wandb_logged_in


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


def wandb_history(path):
    """The rows an offline `.wandb` file holds: LevelDB frames of protobuf records."""
    from wandb.proto import wandb_internal_pb2

    data, at, record, out = path.read_bytes(), 7, b"", []  # 7 bytes of header
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            message, record = wandb_internal_pb2.Record.FromString(record), b""
            if message.WhichOneof("record_type") == "history":
                out.append({(item.key or "/".join(item.nested_key)): item.value_json for item in message.history.item})
    return out


def test_an_offline_run_can_be_read_back_and_keeps_its_id(tmp_path):
    """platform.md 5: offline ignores `resume`, so each restart leaves one more folder of the same id."""
    log = RunLog(LogConfig(tensorboard=False, wandb=WandbConfig(mode="offline")), tmp_path / "run", {"seed": 0})
    log.open(0)
    log.scalars(10, {"loss": 0.5, "val/psnr": 21.0})
    log.histogram(10, "usage/log10_share", np.zeros(8))
    log.image(10, "media/reconstruction", np.zeros((4, 4, 3), np.uint8))
    log.scalars(20, {"loss": 0.25})
    log.close()
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    assert stored_id(tmp_path / "run") in file.name
    losses, patience = [], time.monotonic() + 10
    while len(losses) < 2 and time.monotonic() < patience:  # W&B's own process closes the file when it is ready
        losses = [(row["trainer/global_step"], row["loss"]) for row in wandb_history(file) if "loss" in row]
    assert losses == [("10", "0.5"), ("20", "0.25")]


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


@pytest.mark.parametrize(("package", "config"), [
    ("tensorboard", LogConfig()), ("wandb", LogConfig(tensorboard=False, wandb=WandbConfig())),
])  # fmt: skip
def test_an_absent_logger_is_refused_with_the_remedy(tmp_path, monkeypatch, package, config):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else object())
    with pytest.raises(ValueError, match=f"pip install {package}"):
        RunLog(config, tmp_path)


def test_tensorboard_hides_the_overlap_of_a_resumed_run(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (10, 20, 30)), (20, (30, 40))):
        log = RunLog(LogConfig(), tmp_path)
        log.open(start)
        for step in steps:
            log.scalars(step, {"loss": float(step + start)})
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(10, 10), (20, 20), (30, 50), (40, 60)]


def test_only_the_process_that_opens_writes(tmp_path):
    log = RunLog(LogConfig(), tmp_path / "run")
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert not (tmp_path / "run").exists()
    assert log.latest == {"loss": 1.0}
