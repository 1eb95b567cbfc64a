"""The kernel distance: its formula, and that it has no bias."""

import pytest
import torch

from mmtok.evaluation.kid import KernelDistance, kernel_distance


def draw(count, shift=0.0, seed=0, dim=6):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)) + shift


def test_it_is_the_formula_over_pairs_of_different_pictures():
    a, b = draw(4), draw(4, 0.5, seed=1)
    a[2:], b[2:] = a[:2], b[:2]  # every subset of two has one of three values, so the mean can be written down

    def kernel(x, y):
        return (float(x @ y) / 6 + 1) ** 3

    def estimate(i, j):
        return kernel(a[i], a[j]) + kernel(b[i], b[j]) - kernel(a[i], b[j]) - kernel(a[j], b[i])

    generator = torch.Generator().manual_seed(0)
    subsets = [torch.randperm(4, generator=generator)[:2].tolist() for _ in range(100)]
    want = torch.tensor([estimate(i, j) for i, j in subsets])
    got = kernel_distance(a, b)
    assert got.size == 2
    assert got.mean == pytest.approx(float(want.mean()), rel=1e-5)
    assert got.std == pytest.approx(float(want.std(correction=0)), rel=1e-5)


def test_a_set_is_at_no_distance_from_itself():
    a = draw(40)
    assert kernel_distance(a, a) == pytest.approx(KernelDistance(0.0, 0.0, 20), abs=1e-12)


def test_two_draws_of_one_distribution_are_at_none_on_average():
    """Where a Frechet distance of so few pictures is mostly bias (image.md trap 24)."""
    means = [kernel_distance(draw(60, seed=i), draw(60, seed=1000 + i)).mean for i in range(60)]
    error = torch.tensor(means).std() / 60**0.5
    assert abs(sum(means) / 60) < 3 * error
    assert kernel_distance(draw(60), draw(60, 0.5, seed=1)).mean > 10 * error


def test_stand_ins_that_depend_on_their_pictures_leave_it_without_bias():
    """A reconstruction resembles its input; comparing the two of one picture would pull the distance below zero."""
    means = []
    for i in range(60):
        shared, signs = draw(60, seed=i), draw(60, seed=1000 + i, dim=1).sign()
        means.append(kernel_distance(shared, shared * signs).mean)  # same distribution, strongly dependent
    assert abs(sum(means) / 60) < 3 * torch.tensor(means).std() / 60**0.5


def test_the_draw_is_the_same_every_time():
    a, b = draw(50), draw(50, 0.3, seed=1)
    assert kernel_distance(a, b) == kernel_distance(a, b)
