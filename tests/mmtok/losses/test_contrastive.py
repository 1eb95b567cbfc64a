"""Codes that tell their pair from all others."""

import pytest
import torch
import torch.nn.functional as F

from mmtok.codes import CodeSpec
from mmtok.losses import losses
from mmtok.losses.base import Outcome
from mmtok.losses.contrastive import ContrastiveConfig
from mmtok.schema import ConfigError

SPEC = CodeSpec("image", (16,), downsample=4)


def build(**fields):
    torch.manual_seed(0)
    return losses.build(ContrastiveConfig(**{"features": 6, "width": 5, **fields}).filled(SPEC, 4))


def outcome(count=8, **fields):
    draws = torch.Generator().manual_seed(0)
    x, values = torch.zeros(count, 3, 16, 16), torch.randn(count, 16, 4, generator=draws)
    given = {"values": values, "batch": {"teacher": torch.randn(count, 6, generator=draws)}}
    return Outcome(x, x, **given | fields)


def test_it_is_the_loss_of_clip():
    term, given = build(), outcome()
    a = F.normalize(given.values.mean(1) @ term.of_codes.weight.T, dim=1)
    b = F.normalize(given.batch["teacher"] @ term.of_pairs.weight.T, dim=1)
    logits, wanted = a @ b.T / 0.07, torch.arange(8)
    want = (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2
    torch.testing.assert_close(term.measure(given), want)


def test_pairs_find_each_other_and_the_scale_stays_bounded():
    term, given = build(), outcome()
    values = given.values.clone().requires_grad_()
    optimizer = torch.optim.Adam([values, *term.parameters()], 0.05)
    for _ in range(80):
        optimizer.zero_grad()
        loss = term.measure(outcome(values=values))
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    with torch.no_grad():
        term.log_scale.fill_(99.0)
    assert torch.isfinite(term.measure(given))


def test_a_temperature_beyond_its_bound_finds_back():
    term, given = build(temperature=0.01), outcome()
    with torch.no_grad():
        term.log_scale.add_(0.5)  # as a step of the optimiser may
    term.measure(given).backward()
    assert term.log_scale.grad > 0  # pairs of noise are wrong for certain: a warmer one is better


def test_dropped_positions_do_not_count():
    term, kept = build(), torch.arange(16) < 3
    dirty = outcome()
    dirty.values[:, 3:] = torch.nan
    found = term.measure(outcome(values=dirty.values, positions=kept.expand(8, -1)))
    torch.testing.assert_close(found, term.measure(outcome(values=outcome().values[:, :3])))


def test_no_items_cost_nothing_and_no_pair_is_named():
    assert build().measure(outcome(0)) == 0
    with pytest.raises(ConfigError, match=r"no teacher in the batches. Set data.teacher"):
        build().measure(outcome(batch={}))
    with pytest.raises(ConfigError, match=r"features are \(6,\), and loss.NAME.features=7"):
        build(features=7).measure(outcome())
    with pytest.raises(ValueError, match=r"temperature at least 0.01"):
        ContrastiveConfig(features=3, temperature=0.001)
