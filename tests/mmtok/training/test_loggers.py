import pytest

from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig, WandbConfig


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path, monkeypatch):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


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


def test_a_text_keeps_its_lines_and_signs(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(LogConfig(), tmp_path)
    log.open(0)
    log.text(10, "media/reconstruction", "# no heading\n*a* <b>")
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (shown,) = events.Tensors("media/reconstruction/text_summary")
    assert shown.tensor_proto.string_val[0].decode() == "    # no heading\n    *a* <b>"


def test_only_the_process_that_opens_writes(tmp_path):
    log = RunLog(LogConfig(), tmp_path / "run")
    log.scalars(1, {"loss": 1.0})
    log.close()
    assert not (tmp_path / "run").exists()
    assert log.latest == {"loss": 1.0}
