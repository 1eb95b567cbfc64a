import pytest
import torch

from mmtok.evaluation.density import packed_size, rank_correlation


def test_more_in_a_signal_is_more_bytes():
    noise = torch.rand(3, 16, 16) * 2 - 1
    assert packed_size(noise, None) > packed_size(torch.zeros(3, 16, 16), None)
    assert packed_size(noise.view(1, -1) / 2, 8000) > packed_size(torch.zeros(1, 768), 8000)


def test_ranks_know_ties():
    assert rank_correlation(torch.tensor([1, 2, 2, 3]), torch.tensor([5, 6, 6, 9])) == pytest.approx(1)
