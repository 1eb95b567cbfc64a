"""Layers of signals that arrive in pieces: a step is a pure function of its input and a state that the caller keeps.

Defossez et al. 2024, Moshi (arXiv 2410.00037), streams this way; there each module holds its state, so that two streams
need two models. Here a layer holds none, and takes pieces of any length: what it cannot use yet waits in the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

State: TypeAlias = Any
"""A tree of tuples whose leaves are tensors (B, ...) and plain numbers; an empty tuple where nothing is kept."""


class Streamed(nn.Module):
    """A layer (B, C, S) -> (B, C', S') that can be run in steps; by default one that takes each sample by itself.

    Steps over the pieces of a signal, the last with `last`, give the pieces of what `forward` gives for the whole.
    """

    def init_state(self, batch: int = 1) -> State:
        """The state before the first sample, on the device and in the type of the layer's parameters."""
        return ()

    def step(self, x: Tensor, state: State, last: bool = False) -> tuple[Tensor, State]:
        """The next piece.

        Args:
            x: (B, C, n) samples, n of any size, 0 included.
            state: of `init_state`, or of the step before.
            last: whether the signal ends here, so that what waited comes out.

        Returns:
            All samples (B, C', m) that are complete by now and were not given before, and the state after them.
        """
        return self(x), state

    def reset_state(self, state: State, mask: Tensor) -> State:
        """The state with some items (B,) of `mask` at their beginning again; the others go on.

        Items of a batch move together, so a reset is possible only where nothing of them waits: of causal, zero-padded
        layers after whole frames. `init_state` starts all of them anew at any time.

        Raises:
            ValueError: some samples wait in the state.
        """
        return _where(mask, self.init_state(len(mask)), state)

    def ready(self, count: int) -> int:
        """Samples that come out of the first `count` of an unfinished signal."""
        return count

    def seen(self, low: int, high: int) -> tuple[int, int]:
        """First and last of the inputs that the outputs low ... high depend on; padding counts as input."""
        return low, high


class Chain(Streamed):
    """Layers one after another, by name."""

    def __init__(self, layers: Mapping[str, Streamed]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    @property
    def layers(self) -> list[Streamed]:
        """In the order of the signal."""
        return list(self._modules.values())  # type: ignore[arg-type]  # no other module is ever added

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer(x)  # type: ignore[misc]
        return x

    def init_state(self, batch: int = 1) -> State:
        return tuple(layer.init_state(batch) for layer in self.layers)

    def step(self, x: Tensor, state: State, last: bool = False) -> tuple[Tensor, State]:
        after = []
        for layer, before in zip(self.layers, state, strict=True):
            x, own = layer.step(x, before, last)
            after.append(own)
        return x, tuple(after)

    def ready(self, count: int) -> int:
        for layer in self.layers:
            count = layer.ready(count)
        return count

    def seen(self, low: int, high: int) -> tuple[int, int]:
        for layer in reversed(self.layers):
            low, high = layer.seen(low, high)
        return low, high


class SumState(NamedTuple):
    branch: State
    shortcut: State
    ahead: Tensor
    """(B, C, n) samples of the shortcut whose branch is not computed yet."""


class Sum(Streamed):
    """A branch beside a shortcut, added up. The shortcut must not be later than the branch."""

    def __init__(self, branch: Chain, shortcut: Streamed) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.branch(x)

    def init_state(self, batch: int = 1) -> SumState:
        like = next(self.branch.parameters())
        channels = _channels(self.branch)
        return SumState(
            self.branch.init_state(batch), self.shortcut.init_state(batch), like.new_zeros(batch, channels, 0)
        )

    def step(self, x: Tensor, state: SumState, last: bool = False) -> tuple[Tensor, SumState]:
        y, branch = self.branch.step(x, state.branch, last)
        beside, shortcut = self.shortcut.step(x, state.shortcut, last)
        if state.ahead.shape[2]:
            beside = torch.cat([state.ahead, beside], 2)
        count = y.shape[2]
        # Cloned: a view would keep the whole piece alive.
        return y + beside[..., :count], SumState(branch, shortcut, beside[..., count:].clone())

    def ready(self, count: int) -> int:
        return min(self.branch.ready(count), self.shortcut.ready(count))

    def seen(self, low: int, high: int) -> tuple[int, int]:
        branch, shortcut = self.branch.seen(low, high), self.shortcut.seen(low, high)
        return min(branch[0], shortcut[0]), max(branch[1], shortcut[1])


def _channels(chain: Chain) -> int:
    convolution = chain.layers[-1]
    assert isinstance(convolution, nn.Conv1d), "a branch ends in a convolution"
    return convolution.out_channels


def _where(mask: Tensor, fresh: State, state: State) -> State:
    if isinstance(fresh, Tensor):
        if fresh.shape != state.shape:
            _refuse()
        return fresh.where(mask.view(-1, *[1] * (fresh.dim() - 1)), state)
    if isinstance(fresh, tuple):
        parts = [_where(mask, a, b) for a, b in zip(fresh, state, strict=True)]
        return type(fresh)(*parts) if hasattr(fresh, "_fields") else tuple(parts)
    if fresh != state:
        _refuse()
    return state


def _refuse() -> None:
    raise ValueError(
        "Single streams of a batch can start again only between whole frames, and only where the network is causal and "
        "zero-padded. Use init_state for all of them, or a state a stream."
    )
