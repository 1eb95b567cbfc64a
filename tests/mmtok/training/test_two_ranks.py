"""Losses that meet over ranks are those of one process on the whole batch: pairs, balance, means over few elements."""

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="module")
def worlds(two_ranks):
    """What two gloo ranks saw, and one process with the joined batch."""
    return two_ranks(Path(__file__).with_name("two_ranks.py"))


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("name", ["contrastive", "distill"])
def test_a_loss_of_meaning_is_that_of_the_joined_batch(worlds, name, balance):
    first, second, joined = (world[name, balance] for world in worlds)
    near = {"rtol": 1e-5, "atol": 1e-7}
    for rank in (first, second):
        torch.testing.assert_close(rank["loss"], joined["loss"], **near)
        torch.testing.assert_close(rank["parameters"], joined["parameters"], **near)
    both = torch.stack([first["values"], second["values"]], 1).flatten(0, 1)
    torch.testing.assert_close(both, joined["values"], **near)


def test_a_single_valid_element_counts_whole(worlds):
    first, second, joined = (world["lonely"] for world in worlds)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, joined)
    assert joined[0, 0, 0] == 4  # 2 x of its square


def test_validation_waits_for_no_other_rank(worlds):
    first, second, _ = worlds
    assert first["validated"] > 0
    assert second["validated"] == 0
