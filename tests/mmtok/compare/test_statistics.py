"""Means, intervals, and what they tell apart."""

import pytest
from scipy import stats

from mmtok.compare.statistics import mean_of, ranks, separated


def test_the_interval_is_students():
    values = [3.0, 3.5, 4.6]
    found = mean_of(values)
    low, high = stats.t.interval(0.95, 2, loc=sum(values) / 3, scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))


def test_one_seed_has_no_interval_and_ranks_nothing():
    assert mean_of([2.0]).half is None
    assert not separated([1.0], [5.0])
    assert ranks({"a": [1.0], "b": [5.0]}, higher=True) == {"a": (1, 2), "b": (1, 2)}


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4, 0.8, 3.0])
def test_two_arms_are_separated_as_by_welchs_test(shift):
    a, b = [1.0, 1.3, 0.9, 1.1], [shift + 1.2, shift + 0.8, shift + 1.5]
    assert separated(a, b) == (stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)


def test_places_are_those_the_intervals_allow():
    figures = {"worst": [1, 1.1, 0.9], "high": [5, 5.1, 5.2], "also high": [5.05, 5.1, 5.3]}
    assert ranks(figures, higher=True) == {"worst": (3, 3), "high": (1, 2), "also high": (1, 2)}
    assert ranks(figures, higher=False) == {"worst": (1, 1), "high": (2, 3), "also high": (2, 3)}


def test_seeds_that_agree_to_the_last_digit_are_told_apart():
    assert separated([1.0, 1.0], [2.0, 2.0])
    assert not separated([1.0, 1.0], [1.0, 1.0])
