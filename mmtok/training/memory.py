"""What each rank remembers between two lines of the log, on its way into a checkpoint that the first rank writes.

Added up before it is saved it would come back with other roundings than in a run that was never interrupted; so every
rank's is saved, and each takes its own back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist


def gather_states(state: Any) -> list[Any]:
    """Every rank's state, in their order; all ranks call this together.

    Args:
        state: plain containers, and tensors on the CPU.
    """
    if not dist.is_available() or not dist.is_initialized():
        return [state]
    states: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(states, state)
    return states


def own_states(states: Sequence[Any]) -> list[tuple[Any, int]]:
    """Which of the saved states this rank takes back: (state, 1), its own where as many ranks saved as there are now.

    Otherwise the first rank takes all, and the others (state, 0): nothing, under the same names.
    """
    there = dist.is_available() and dist.is_initialized()
    rank, world = (dist.get_rank(), dist.get_world_size()) if there else (0, 1)
    if len(states) == world:
        return [(states[rank], 1)]
    return [(state, int(rank == 0)) for state in states]
