import pytest
import torch

from datamodules.interactions import Interactions
from mmtok.downstream.histories import batches, leave_last_out

ROWS = {name: row for row, name in enumerate("abcdefgh")}


def test_the_last_is_tested_the_one_before_validates_and_the_rest_is_trained_on():
    split = leave_last_out(Interactions(("u", "v"), (tuple("abcde"), tuple("fgh"))), ROWS, length=4)
    assert split.train.items.tolist() == [[0, 1, 2, -1, -1]]
    assert split.validation.histories.items.tolist() == [[0, 1, 2, -1], [5, -1, -1, -1]]
    assert split.validation.wanted.tolist() == [ROWS["d"], ROWS["g"]]
    assert split.test.histories.items.tolist() == [[0, 1, 2, 3], [5, 6, -1, -1]]
    assert split.test.wanted.tolist() == [ROWS["e"], ROWS["h"]]
    assert split.occurrences.tolist() == [1, 1, 1, 0, 0, 1, 0, 0]
    assert not split.repeats


def test_nothing_that_is_asked_is_trained_on():
    data = Interactions(tuple("uvw"), (tuple("abcdefgh"), tuple("cab"), tuple("hgfe")))
    split = leave_last_out(data, ROWS, length=3)
    for row, sequence in enumerate(data.sequences):
        of_user = split.train.items[split.train.users == split.test.histories.users[row]]
        assert set(of_user.flatten().tolist()) - {-1} == {ROWS[one] for one in sequence[:-2]} - (
            {ROWS[sequence[0]]} if len(sequence) == 3 else set()
        )


def test_long_sequences_are_learned_whole_in_pieces_that_overlap_by_one():
    data = Interactions(("u",), (tuple("abcdefgh"),))
    split = leave_last_out(data, ROWS, length=2)
    assert split.train.items.tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, -1]]
    assert split.test.histories.items.tolist() == [[ROWS["f"], ROWS["g"]]]
    learned = [one for piece in split.train.items[:, 1:].tolist() for one in piece if one >= 0]
    assert learned == [1, 2, 3, 4, 5]


def test_a_user_of_two_items_is_refused_and_repeats_are_noticed():
    with pytest.raises(ValueError, match="leave-last-out needs 3"):
        leave_last_out(Interactions(("u",), (("a", "b"),)), ROWS, 4)
    assert leave_last_out(Interactions(("u",), (tuple("aba"),)), ROWS, 4).repeats


def test_batches_take_every_row_as_often_and_hold_about_equal_lengths():
    lengths = torch.arange(64) % 8
    source = batches(lengths, 2, torch.Generator().manual_seed(0))
    taken = [next(source) for _ in range(64)]
    assert torch.cat(taken).bincount().tolist() == [2] * 64
    assert all(int(lengths[rows].max() - lengths[rows].min()) <= 1 for rows in taken)
