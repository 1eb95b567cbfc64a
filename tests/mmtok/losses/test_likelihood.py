"""The likelihood of bytes: what it costs in bits, and that padding costs nothing."""

from math import log

import pytest
import torch

from mmtok.losses import losses


def test_even_logits_cost_eight_bits_a_byte():
    loss = losses.build("bytes")
    assert float(loss(torch.zeros(2, 256, 5), torch.zeros(2, 1, 5))) / log(2) == pytest.approx(8)


def test_the_mean_is_over_bytes_that_are_no_padding_whatever_stands_there():
    torch.manual_seed(0)
    loss = losses.build("bytes")
    logits, x = torch.randn(3, 256, 7), torch.randint(0, 256, (3, 1, 7))
    lengths = torch.tensor([7, 2, 0])
    mask = (torch.arange(7) < lengths[:, None])[:, None]
    want = torch.cat([loss(logits[i : i + 1, :, :n], x[i : i + 1, :, :n])[None] * n for i, n in ((0, 7), (1, 2))])
    spoilt = logits.where(mask, torch.nan).requires_grad_()
    found = loss(spoilt, x.float(), mask)
    torch.testing.assert_close(found, want.sum() / 9)
    found.backward()
    assert spoilt.grad[2].abs().sum() == 0


def test_nothing_but_padding_costs_nothing():
    loss = losses.build("bytes")
    assert float(loss(torch.randn(1, 256, 4), torch.zeros(1, 1, 4), torch.zeros(1, 1, 4, dtype=torch.bool))) == 0
