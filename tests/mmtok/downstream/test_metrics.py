import math

import pytest
import torch

from mmtok.downstream.metrics import mrr, ndcg, places, recall, strike

ANSWERS = torch.tensor([[3, 1, 2], [1, 2, 3], [5, 6, -1], [7, 8, 9]])
WANTED = torch.tensor([3, 3, 6, 1])


def test_the_measures_are_what_a_hand_reckons():
    place = places(ANSWERS, WANTED)
    assert place.tolist()[:3] == [0, 2, 1]
    assert recall(place, 1) == 0.25
    assert recall(place, 3) == 0.75
    assert ndcg(place, 3) == pytest.approx((1 + 1 / math.log2(4) + 1 / math.log2(3)) / 4)
    assert ndcg(place, 2) == pytest.approx((1 + 1 / math.log2(3)) / 4)
    assert mrr(place, 10) == pytest.approx((1 + 1 / 3 + 1 / 2) / 4)
    assert mrr(place, 2) == pytest.approx((1 + 1 / 2) / 4)


def test_what_is_not_answered_is_no_hit_though_the_answer_is_shorter_than_k():
    assert recall(places(torch.tensor([[1, 2]]), torch.tensor([3])), 10) == 0


def test_no_item_is_never_what_was_wanted():
    assert strike(torch.tensor([[4, 5, 6, 7]]), torch.tensor([[6, 4, -1]])).tolist() == [[5, 7, -1, -1]]
    assert strike(torch.tensor([[4, -1]]), torch.tensor([[9, -1]])).tolist() == [[4, -1]]
