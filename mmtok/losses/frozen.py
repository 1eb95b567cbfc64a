"""Networks that judge and never learn: the backbones of perceptual losses and of evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


class Frozen(nn.Module, Generic[N]):
    """A network without parameters and without a state: its weights are buffers that no checkpoint holds.

    So no optimiser finds them, DDP reduces no gradient of them, a run saves and restores without them, and a gradient
    still passes through to what the network is given. They follow `.to(device)`, stay float32 whatever dtype the parent
    is cast to, and stay in evaluation mode whatever the parent's: `.train()` of a parent is how dropout comes alive in
    the LPIPS of several published trainers.
    """

    module: N

    def __init__(self, network: N) -> None:
        super().__init__()
        for part in network.modules():
            for name, weight in list(part.named_parameters(recurse=False)):
                delattr(part, name)
                part.register_buffer(name, weight.detach())
            part._non_persistent_buffers_set.update(name for name, _ in part.named_buffers(recurse=False))
        self.module = network
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, *args: Tensor) -> Any:
        """What the network gives, in float32: distances of features are small differences of large numbers."""
        with torch.autocast(args[0].device.type, enabled=False):
            return self.module(*(value.float() for value in args))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep, recurse)


def freeze(network: N) -> Frozen[N]:
    """A network for judging: frozen, in evaluation mode, outside checkpoints, optimisers and DDP. It is changed."""
    return Frozen(network)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds a state dict and nothing else.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"There is no file of weights at {path}.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a zip, a pickle or neither: torch raises a kind of its own for each
        raise ValueError(f"{path} is no file of weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} holds no plain state dict. Save network.state_dict(), or use safetensors.")
    return state


def load_weights(network: nn.Module, weights: dict[str, Tensor], source: str | Path) -> None:
    """Put weights into a network of any device, the meta device included.

    Raises:
        ValueError: some are missing or have another shape; names the first.
    """
    own = network.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):  # of no use in evaluation, and absent from old files
            continue
        if name not in weights:
            raise ValueError(f"{source} has no '{name}': these are the weights of another network.")
        if weights[name].shape != tensor.shape:
            found, wanted = tuple(weights[name].shape), tuple(tensor.shape)
            raise ValueError(f"{source}: '{name}' is {found} and should be {wanted}. It is of another network.")
    network.load_state_dict({name: weights.get(name, tensor) for name, tensor in own.items()}, assign=True)
