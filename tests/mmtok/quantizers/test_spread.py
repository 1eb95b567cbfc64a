"""Lookup-free quantizers whose channels are spread over the grid by the first update."""

from __future__ import annotations

import pytest
import torch

from mmtok.quantizers import build_quantizer

NARROW = 0.1 * torch.randn(4, 200, 16, generator=torch.Generator().manual_seed(0)) + 0.3
"""As an encoder gives it at its start: little around much."""
BLOCKS = [{"name": "fsq", "levels": [8, 8, 4, 4]}, {"name": "lfq", "bits": 10, "entropy_weight": 0.0}]


def build(block, **fields):
    torch.manual_seed(0)
    return build_quantizer(block | fields, dim=16)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["name"])
def test_the_first_update_brings_the_grid_into_use(block):
    plain, spread = build(block), build(block, init="spread")
    spread.update(spread(NARROW).stats)
    projected = spread.project_in(NARROW).flatten(0, 1)
    torch.testing.assert_close(projected.mean(0), torch.zeros_like(projected[0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(projected.std(0, correction=0), torch.ones_like(projected[0]), atol=1e-3, rtol=0)
    before, after = (len(one.eval().encode(NARROW).unique()) for one in (plain, spread))
    assert after > 2 * before


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block["name"])
def test_it_is_done_once_and_remembered(block):
    quantizer = build(block, init="spread")
    quantizer.update(quantizer(NARROW).stats)
    assert not quantizer.learns
    again = build(block, init="spread")
    again.load_state_dict(quantizer.state_dict())
    for one in (quantizer, again):
        weight = one.project_in.weight.clone()
        out = one(5 * NARROW)
        assert "moments" not in out.stats
        one.update(out.stats)
        assert torch.equal(one.project_in.weight, weight)


def test_padding_and_silent_channels_move_nothing():
    quantizer = build(BLOCKS[0], init="spread")
    with torch.no_grad():
        quantizer.project_in.weight[1].zero_()
    weight, mask = quantizer.project_in.weight.clone(), torch.arange(200) < torch.tensor([[200], [50], [1], [0]])
    stats = quantizer(NARROW, mask).stats
    quantizer.update(stats)
    valid = quantizer.project_in(NARROW)[mask]
    torch.testing.assert_close(valid.std(0, correction=0)[0], torch.tensor(1.0), atol=1e-3, rtol=0)
    assert torch.equal(quantizer.project_in.weight[1], weight[1])


def test_groups_that_share_a_quantizer_spread_it_together():
    inner = {"name": "fsq", "init": "spread", "levels": [8, 8]}
    quantizer = build({"name": "product", "inner": inner, "groups": 2, "shared": True})
    assert quantizer.learns
    quantizer.update(quantizer(NARROW).stats)
    assert not quantizer.learns
    both = torch.cat([quantizer.parts[0].project_in(half) for half in NARROW.chunk(2, -1)]).flatten(0, 1)
    torch.testing.assert_close(both.std(0, correction=0), torch.ones(2), atol=1e-3, rtol=0)


def test_evaluation_changes_nothing():
    quantizer = build(BLOCKS[0], init="spread").eval()
    assert "moments" not in quantizer(NARROW).stats
