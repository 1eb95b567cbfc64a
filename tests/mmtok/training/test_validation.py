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
    x = torch.rand(4, 1, 400, generator=torch.Generator().manual_seed(0)) * 2 - 1
    cut = x.where(torch.arange(400) < LENGTHS[:, None, None], 0.0)
    return scalars(module, [{"x": cut[batch], "lengths": LENGTHS[batch]} for batch in batches])


def scalars(module, batches):
    """`val/*` of batches."""
    said = {}
    log = SimpleNamespace(scalars=lambda step, values: said.update(values), latest=said)
    trainer = SimpleNamespace(world_size=1, global_step=1, is_global_zero=False, sanity_checking=False)
    callback = Validation(log, lambda line: None)
    callback.on_validation_start(trainer, module)
    for batch in batches:
        with torch.no_grad():
            outputs = module.validation_step(batch | {"valid": torch.ones(len(batch["x"])).bool()}, 0)
        callback.on_validation_batch_end(trainer, module, outputs)
    callback.on_validation_epoch_end(trainer, module)
    return said


def test_short_clips_weigh_what_they_hold(module):
    """A mean of means would depend on which rank a short clip falls to."""
    whole = validated(module, [[0, 1, 2, 3]])
    apart = validated(module, [[0, 1, 3], [2]])
    assert apart["val/loss/level"] == pytest.approx(whole["val/loss/level"], rel=1e-5)
    assert apart["val/si_sdr"] == pytest.approx(whole["val/si_sdr"], rel=1e-4)


ROW = [
    "tokenizer={name: image_1d, image_size: 16, dim: 8, nested: uniform, encoder: {name: queries, patch: 4, width: 32, "
    "layers: 1, heads: 2, queries: 16}}", "quantizer={name: vq, codebook_size: 16}", "optim.ema=0",
]  # fmt: skip


def row(*words):
    torch.manual_seed(0)
    return TokenizerModule(load_config(["image/row_cifar"], [*ROW, *words]).config).eval()


def test_validation_tells_what_a_length_is_worth():
    module = row()
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    said = scalars(module, [{"x": x[:3]}, {"x": x[3:]}])
    lengths = {name: value for name, value in said.items() if name.startswith("val/positions/")}
    assert list(lengths) == [f"val/positions/{count}/psnr" for count in (1, 2, 4, 8, 16)]
    with torch.no_grad():
        y = module.tokenizer(x, positions=torch.full((4,), 2)).x
        error = (y.clamp(-1, 1) - x).square().flatten(1).mean(1)
    assert lengths["val/positions/2/psnr"] == pytest.approx(float((10 * (4 / error).log10()).mean()), rel=1e-5)
    assert lengths["val/positions/16/psnr"] == pytest.approx(said["val/psnr"], abs=0.05)  # not rounded to pixels


@pytest.mark.parametrize("words", [["log.lengths=false"], ["tokenizer.nested=none"]])
def test_codes_that_training_does_not_cut_are_not_cut_in_validation(words):
    x = torch.rand(2, 3, 16, 16) * 2 - 1
    assert not [name for name in scalars(row(*words), [{"x": x}]) if "positions" in name]


def test_levels_are_cut_where_training_drops_them():
    words = [*TINY, "quantizer.depth=4"]
    module = TokenizerModule(load_config(["audio/soundstream"], [*words, "quantizer.dropout=0.5"]).config).eval()
    said = validated(module, [[0, 1, 3], [2]])
    assert [name for name in said if name.startswith("val/levels/")] == [f"val/levels/{k}/si_sdr" for k in (1, 2, 4)]
    assert said["val/levels/4/si_sdr"] == pytest.approx(said["val/si_sdr"], rel=1e-4)
    plain = TokenizerModule(load_config(["audio/soundstream"], [*words, "quantizer.dropout=0"]).config).eval()
    assert not [name for name in validated(plain, [[0, 1, 2, 3]]) if "levels/" in name]


def test_digits_are_cut_where_training_drops_them():
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    words = ["tokenizer.nested=none", "quantizer={name: lfq, bits: 4, dropout: 0.5}"]
    module = row(*words)
    said = scalars(module, [{"x": x}])
    assert [name for name in said if "digits/" in name] == [f"val/digits/{count}/psnr" for count in (1, 2, 4)]
    with torch.no_grad():
        y = module.tokenizer.prefix(2)(x).x
        error = (y.clamp(-1, 1) - x).square().flatten(1).mean(1)
    assert said["val/digits/2/psnr"] == pytest.approx(float((10 * (4 / error).log10()).mean()), rel=1e-4)
