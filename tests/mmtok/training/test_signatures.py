from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmtok.codes import CodeSpec
from mmtok.training.alarms import Alarm, AlarmConfig
from mmtok.training.callbacks.signatures import Signatures
from mmtok.training.callbacks.validation import Validation
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig


def blur(x, sigma):
    taps = torch.exp(-(torch.arange(-6, 7) ** 2) / (2 * sigma**2))
    kernel = (taps[:, None] * taps / taps.sum() ** 2).expand(x.shape[1], 1, 13, 13)
    return F.conv2d(F.pad(x, (6, 6, 6, 6), mode="reflect"), kernel, groups=x.shape[1])


class Stage:
    """Validations of given reconstructions, through both callbacks."""

    def __init__(self, tmp_path, **alarms):
        config = LogConfig(alarms=AlarmConfig(after_steps=100, **alarms))
        self.lines, self.log = [], RunLog(config, tmp_path)
        self.signatures = Signatures(config, self.log, self.lines.append)
        self.callbacks = [Validation(self.log, lambda line: None), self.signatures]
        self.trainer = SimpleNamespace(
            global_step=0, world_size=1, is_global_zero=True, sanity_checking=False, num_val_batches=[2]
        )

    def validate(self, step, x, reconstruction, bypass=None, ids=None, labels=None):
        self.trainer.global_step = step
        spec = CodeSpec("image", (16,), channels=3)
        module = SimpleNamespace(device=torch.device("cpu"), tokenizer=SimpleNamespace(spec=spec))
        ids = torch.zeros(len(x), 1, 4, dtype=torch.long) if ids is None else ids
        for callback in self.callbacks:
            callback.on_validation_start(self.trainer, module)
        for part in torch.arange(len(x)).chunk(2):
            outputs = {
                "x": x[part],
                "reconstruction": reconstruction[part],
                "bypass": (x if bypass is None else bypass)[part],
                "cut": {},
                "loss": torch.tensor(0.0),
                "terms": {},
                "quantized": SimpleNamespace(stats={}, ids=ids[part]),
            }
            batch = {"x": x[part], "label": (torch.full((len(x),), -1) if labels is None else labels)[part]}
            for callback in self.callbacks:
                callback.on_validation_batch_end(self.trainer, module, outputs, batch, 0)
        self.callbacks[0].on_validation_epoch_end(self.trainer, module)
        self.signatures.on_validation_end(self.trainer, module)


@pytest.fixture
def x():
    noise = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return (blur(noise, 0.4) * 1.2).clamp(-1, 1)


def test_blurred_reconstructions_raise_the_alarm_once_and_sharp_ones_clear_it(tmp_path, x):
    stage = Stage(tmp_path, probe_samples=0, gap_max_db=100.0)
    stage.validate(200, x, x)
    assert stage.lines == []
    for step in (300, 400):
        stage.validate(step, x, blur(x, 1.5))
    (line,) = stage.lines
    assert line.startswith("ALARM blur at step 300: ")
    assert stage.log.latest["alarm/blur"] == 1.0
    stage.validate(500, x, x)
    assert stage.lines[1:] == ["blur is over at step 500"]
    assert stage.log.latest["alarm/blur"] == 0.0


def test_young_reconstructions_may_be_blurred(tmp_path, x):
    stage = Stage(tmp_path, probe_samples=0)
    stage.validate(50, x, blur(x, 1.5))
    assert stage.lines == []


def test_the_line_of_blur_says_whether_the_quantizer_or_the_network_is_to_blame(tmp_path, x):
    network, quantizer = Stage(tmp_path, probe_samples=0), Stage(tmp_path, probe_samples=0, gap_max_db=100.0)
    network.validate(200, x, blur(x, 1.5), bypass=blur(x, 1.5))
    quantizer.validate(200, x, blur(x, 1.5), bypass=x)
    assert "the network or the objective" in network.lines[0]
    assert "more codes, levels or positions" in quantizer.lines[0]


def test_a_wide_quantization_gap_is_an_alarm_of_its_own(tmp_path, x):
    stage = Stage(tmp_path, probe_samples=0)
    stage.validate(200, x, x + 0.2, bypass=x + 0.02)
    assert stage.lines[0].startswith("ALARM quantization gap at step 200: quantizing costs ")
    assert stage.log.latest["val/quantization_gap"] == pytest.approx(20, abs=1)


def meaningful(labels, share, seed):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(64, (len(labels), 1, 16), generator=generator)
    return torch.where(torch.rand(ids.shape, generator=generator) < share, labels[:, None, None], ids)


def test_ids_that_lose_their_meaning_are_reported(tmp_path):
    x, labels = torch.zeros(200, 3, 8, 8), torch.arange(200) % 4
    stage = Stage(tmp_path)
    for step, share in ((200, 0.5), (300, 0.45), (400, 0.0), (500, 0.0), (600, 0.5)):
        stage.validate(step, x, x, ids=meaningful(labels, share, step), labels=labels)
    drift = [line for line in stage.lines if "drift" in line]
    assert drift[0].startswith("ALARM semantic drift at step 500: ")
    assert "it was 100 %, chance is 25 %" in drift[0]
    assert drift[1:] == ["drift is over at step 600"]


def test_the_best_probe_survives_a_restart(tmp_path):
    x, labels = torch.zeros(200, 3, 8, 8), torch.arange(200) % 4
    before, after = Stage(tmp_path), Stage(tmp_path)
    before.validate(200, x, x, ids=meaningful(labels, 0.5, 1), labels=labels)
    after.signatures.load_state_dict(before.signatures.state_dict())
    for step in (300, 400):
        after.validate(step, x, x, ids=meaningful(labels, 0.0, step), labels=labels)
    assert any("ALARM semantic drift" in line for line in after.lines)


def test_without_labels_drift_is_not_available_and_says_so_once(tmp_path, x):
    stage = Stage(tmp_path)
    for step in (200, 300):
        stage.validate(step, x, x)
    assert stage.lines == [
        "semantic drift: n/a, validation samples of two labelled classes are needed to probe the ids"
    ]
    assert "alarm/drift" not in stage.log.latest


def test_an_alarm_waits_for_as_many_readings_as_it_is_told():
    alarm = Alarm("x", after=2)
    assert [alarm.read(bad) for bad in (True, False, True, True, True, False, False)] == [
        None, None, None, "rises", None, "clears", None,
    ]  # fmt: skip
