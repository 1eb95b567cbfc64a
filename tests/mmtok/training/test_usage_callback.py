from types import SimpleNamespace

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.quantizers.usage import UsageConfig
from mmtok.tokenizers import build_tokenizer
from mmtok.training.callbacks.usage import CodebookUsage, log_shares, reduced
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig

HEALTHY = torch.full((64,), 100)
COLLAPSED = torch.zeros(64, dtype=torch.int64).index_fill(0, torch.tensor([3]), 6400)


class Stage:
    """A trainer and a module as far as the callback looks, and a run that ticks."""

    def __init__(self, tmp_path, **usage):
        config = LogConfig(usage_every_steps=1, usage=UsageConfig(**usage))
        self.lines = []
        self.log = RunLog(config, tmp_path)
        self.callback = CodebookUsage(config, self.log, self.lines.append)
        self.trainer = SimpleNamespace(global_step=0, world_size=1, is_global_zero=True, should_stop=False)
        self.quantizer = build_quantizer("rq", dim=4, codebook_size=64, depth=2)
        self.module = SimpleNamespace(tokenizer=SimpleNamespace(quantizer=self.quantizer))
        self.callback.on_train_start(self.trainer, self.module)

    def step(self, **stats):
        self.trainer.global_step += 1
        named = {name.replace("_", "."): value for name, value in stats.items()}
        outputs = {"quantized": SimpleNamespace(stats=named)}
        self.callback.on_train_batch_end(self.trainer, self.module, outputs, None, 0)


def test_a_healthy_codebook_is_logged_and_not_talked_about(tmp_path):
    stage = Stage(tmp_path)
    for _ in range(5):
        stage.step(counts=HEALTHY)
    assert stage.lines == []
    assert stage.log.latest["usage/active"] == 1.0
    assert stage.log.latest["alarm/collapse"] == 0.0


def test_a_collapse_is_told_once_after_patience_and_once_when_it_is_over(tmp_path):
    stage = Stage(tmp_path, patience=2)
    for counts in (HEALTHY, COLLAPSED):
        stage.step(counts=counts)
    assert stage.lines == []
    for _ in range(4):
        stage.step(counts=COLLAPSED)
    (line,) = stage.lines
    assert line.startswith("ALARM codes collapsed at step 3: 2 % of 64 codes in use, perplexity 1")
    assert "Try " in line
    assert stage.log.latest["alarm/collapse"] == 1.0
    for _ in range(2):
        stage.step(counts=HEALTHY)
    assert stage.lines[1:] == ["codes recovered at step 7"]
    assert stage.log.latest["alarm/collapse"] == 0.0


def test_one_level_of_several_is_named(tmp_path):
    stage = Stage(tmp_path, patience=1)
    stage.step(**{"0_counts": HEALTHY, "1_counts": COLLAPSED})
    assert [line[:35] for line in stage.lines] == ["ALARM codes collapsed in level 1 at"]
    assert stage.log.latest["usage/0/active"] == 1.0
    assert stage.log.latest["usage/active"] == pytest.approx((1 + 1 / 64) / 2)
    assert stage.log.latest["usage/state"] == 4.0


def test_a_window_with_too_few_tokens_is_carried_on(tmp_path):
    stage = Stage(tmp_path)
    stage.step(counts=HEALTHY // 10)
    assert stage.log.latest["usage/state"] == -1.0
    for _ in range(3):
        stage.step(counts=HEALTHY // 10)
    assert stage.log.latest["usage/tokens_per_code"] == 40.0
    assert stage.log.latest["usage/state"] == 0.0
    stage.step(counts=HEALTHY)
    assert stage.log.latest["usage/tokens_per_code"] == 100.0


def test_stop_ends_the_run_and_says_so(tmp_path):
    stage = Stage(tmp_path, patience=1, action="stop")
    stage.step(counts=COLLAPSED)
    assert stage.trainer.should_stop
    assert "stopping" in stage.lines[-1]


def test_revive_restarts_codes_of_every_level_and_survives_a_restart(tmp_path):
    stage = Stage(tmp_path, patience=1, action="revive")
    for _ in range(3):
        stage.step(counts=COLLAPSED)
    assert stage.lines[1:] == ["collapse at step 1: unused codes restart from badly coded latents from now on."]
    levels = [module for module in stage.quantizer.modules() if hasattr(module, "codebook")]
    assert len(levels) == 2
    assert all(level.restart > 0 for level in levels)
    resumed = Stage(tmp_path, patience=1, action="revive")
    resumed.callback.load_state_dict(stage.callback.state_dict())
    resumed.callback.on_train_start(resumed.trainer, resumed.module)
    assert all(module.restart > 0 for module in resumed.quantizer.modules() if hasattr(module, "codebook"))


def test_revive_says_so_where_no_code_can_restart(tmp_path):
    stage = Stage(tmp_path, patience=1, action="revive")
    stage.module.tokenizer.quantizer = build_quantizer("fsq", dim=4)
    for _ in range(3):
        stage.step(counts=COLLAPSED)
    assert len([line for line in stage.lines if "no effect" in line]) == 1


def test_a_quantizer_without_codes_is_left_alone(tmp_path):
    stage = Stage(tmp_path)
    stage.step()
    assert stage.log.latest == {}


def test_counts_of_ranks_are_summed_exactly_and_sums_of_squares_beside_them(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: calls.append(tensor.dtype) or tensor.mul_(2))
    big = torch.tensor([2**53 + 1, 1])
    out = reduced({"0.counts": big, "0.input_sq": torch.tensor(0.5), "1.counts": torch.tensor([3])}, world=2)
    assert out["0.counts"].tolist() == [2**54 + 2, 2]
    assert out["0.input_sq"] == 1.0
    assert out["1.counts"].tolist() == [6]
    assert calls == [torch.int64, torch.float32]


def test_shares_are_relative_to_even_use():
    shares = log_shares(torch.tensor([10, 10, 20, 0]))
    assert shares.tolist() == pytest.approx([0.0, 0.0, 0.30103, -4.0], abs=1e-4)


@pytest.mark.parametrize("name", ["vq", "fsq", "lfq", "bsq", "ibq", "gumbel"])
def test_positions_that_an_item_dropped_are_not_counted(tmp_path, name):
    encoder = {"name": "queries", "patch": 4, "width": 32, "layers": 1, "heads": 2, "queries": 16}
    block = {"name": "image_1d", "image_size": 16, "dim": 8, "nested": "uniform", "encoder": encoder}
    tokenizer = build_tokenizer(block, {"name": name})
    kept = torch.tensor([1, 5, 16])
    with torch.no_grad():
        out = tokenizer(torch.rand(3, 3, 16, 16) * 2 - 1, positions=kept, seed=0).quantized
    assert (out.ids[:, 0] >= 0).sum(1).tolist() == kept.tolist()
    stage = Stage(tmp_path)
    stage.step(**out.stats)
    assert stage.log.latest["usage/tokens"] == 22
    used = out.ids[out.ids >= 0].unique()
    assert out.stats["counts"].nonzero()[:, 0].tolist() == used.tolist()


def test_levels_that_an_item_dropped_are_not_counted(tmp_path):
    stage = Stage(tmp_path)
    out = stage.quantizer(torch.randn(3, 7, 4), levels=torch.tensor([1, 2, 1]))
    stage.callback.window.add(out.stats)
    stage.callback.read(stage.trainer, stage.module)
    assert [stage.log.latest[f"usage/{level}/tokens"] for level in (0, 1)] == [21, 7]
    assert (out.ids >= 0).sum((0, 2)).tolist() == [21, 7]
