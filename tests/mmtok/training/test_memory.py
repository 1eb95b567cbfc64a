"""What ranks remember between two lines of the log comes back to each, and is complete on any other number of ranks."""

import torch

from mmtok.training import memory
from mmtok.training.logs import ScalarBuffer
from mmtok.training.memory import gather_states, own_states


def buffer(*adds):
    window = ScalarBuffer()
    for values in adds:
        window.add(values)
    return window


def test_a_window_that_was_saved_goes_on_bit_by_bit():
    values = [{"loss": torch.rand(()), "psnr": torch.rand(())} for _ in range(20)]
    straight = buffer(*values, {"lr": 0.1})
    resumed = ScalarBuffer()
    for state, share in own_states(gather_states(buffer(*values[:7]).state_dict())):
        resumed.add_state(state, share)
    for one in values[7:]:
        resumed.add(one)
    resumed.add({"lr": 0.1})
    assert resumed.flush() == straight.flush()


def test_on_another_number_of_ranks_the_first_takes_all_and_the_others_the_names(monkeypatch):
    saved = [
        buffer({"loss": torch.tensor(1.0)}).state_dict(),
        buffer({"loss": torch.tensor(3.0)}, {"x": 1.0}).state_dict(),
    ]
    assert own_states(saved) == [(saved[0], 1), (saved[1], 1)]
    monkeypatch.setattr(memory.dist, "is_initialized", lambda: True)
    for rank, total in ((0, 4.0), (1, 0.0), (2, 0.0)):
        monkeypatch.setattr(memory.dist, "get_world_size", lambda: 3)
        monkeypatch.setattr(memory.dist, "get_rank", lambda rank=rank: rank)
        window = ScalarBuffer()
        for state, share in own_states(saved):
            window.add_state(state, share)
        state = window.state_dict()
        assert [(names, weight, float(value)) for names, weight, value in state["sums"]] == [
            (["loss"], 2.0 * (rank == 0), total)
        ]
        assert state["host"] == {"x": [float(rank == 0), float(rank == 0)]}
