"""Scalars of a validation, however its items come in batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mmtok.config import load_config
from mmtok.training.callbacks.validation import Validation
from mmtok.training.module import TokenizerModule

LENGTHS = torch.tensor([400, 120, 40, 280])
TINY = [
    "tokenizer.encoder.channels=2", "tokenizer.encoder.strides=[4,5]", "quantizer.depth=2", "data.seconds=0.1",
    "adversary=null", "loss={level: {name: l1}}", "optim.ema=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def module():
    return TokenizerModule(load_config(["audio/soundstream"], TINY).config).eval()


def validated(module, batches):
    """`val/*` of clips that come in these batches."""
    said = {}
    log = SimpleNamespace(scalars=lambda step, values: said.update(values), latest=said)
    trainer = SimpleNamespace(world_size=1, global_step=1, is_global_zero=False, sanity_checking=False)
    callback = Validation(log, lambda line: None)
    callback.on_validation_start(trainer, module)
    x = torch.rand(4, 1, 400, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for batch in batches:
        lengths = LENGTHS[batch]
        cut = x[batch].where(torch.arange(400) < lengths[:, None, None], 0.0)
        with torch.no_grad():
            outputs = module.validation_step({"x": cut, "lengths": lengths, "valid": torch.ones(len(batch)).bool()}, 0)
        callback.on_validation_batch_end(trainer, module, outputs)
    callback.on_validation_epoch_end(trainer, module)
    return said


def test_short_clips_weigh_what_they_hold(module):
    """A mean of means would depend on which rank a short clip falls to."""
    whole = validated(module, [[0, 1, 2, 3]])
    apart = validated(module, [[0, 1, 3], [2]])
    assert apart["val/loss/level"] == pytest.approx(whole["val/loss/level"], rel=1e-5)
    assert apart["val/si_sdr"] == pytest.approx(whole["val/si_sdr"], rel=1e-4)
