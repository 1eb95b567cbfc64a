"""Start a run from another's weights, and say what was taken, resized and skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mmtok.loading import load
from mmtok.networks.weight_norm import DIRECTION, LENGTH, as_pair, as_plain
from mmtok.training.module import TokenizerModule


def initialise(module: TokenizerModule, path: str) -> list[str]:
    """Copy what fits from the tokenizer at `path` into the module (and its average).

    Layer by layer: half of one, as a bias without its weights, or a counter of updates without the codes it is about,
    would be worse than none. A layer of another length along its first axis (a codebook of another size, say) is taken
    as far as it goes. Weights that are normed in one and plain in the other are the same weights.

    Args:
        module: of the run that begins.
        path: a run, a checkpoint or an imported tokenizer.

    Returns:
        Lines that say what happened to every tensor, in groups.

    Raises:
        ValueError: nothing of it fits.
    """
    origin = load(path)
    found = _Copied()
    source, target = _by_layer(origin.state_dict()), _by_layer(module.tokenizer.state_dict())
    with torch.no_grad():
        for name, layer in target.items():
            found.copy(name, _in_form(source[name], layer) if name in source else None, layer)
    if not found.taken and not found.resized:
        raise ValueError(f"init_from={path}: not one tensor fits this tokenizer. Compare the two configurations.")
    # As from a checkpoint: a quantizer that was initialised must know it, or k-means would replace the codes again.
    module.tokenizer.load_state_dict(module.tokenizer.state_dict())
    if module.ema is not None:
        module.ema.load_state_dict(module.tokenizer.state_dict())
    unused = [name for name in source if name not in target]
    before, after = origin.spec.sample_rate, module.tokenizer.spec.sample_rate
    return [
        f"init_from {path}: {found.taken} tensors taken",
        *([f"  from {before:,} to {after:,} Hz"] if before and after and before != after else []),
        *(f"  resized: {line}" for line in found.resized),
        *(f"  skipped: {line}" for line in found.skipped),
        *(f"  new: {name}" for name in found.new),
        *(f"  not used: {name}" for name in unused),
    ]


@dataclass
class _Copied:
    """What became of the layers, in words where it is not all of them."""

    taken: int = 0
    resized: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def copy(self, name: str, source: Mapping[str, Tensor] | None, target: Mapping[str, Tensor]) -> None:
        """Copy one layer, where it fits; what the source lacks of it stays as it is."""
        if source is None:
            self.new.append(name)
            return
        both = [part for part in target if part in source]
        self.new += [f"{name}.{part}" for part in target if part not in source]
        # Rows are of codes or of outputs; a layer of one axis alone (a norm) belongs to its neighbours' channels.
        rows = any(target[part].ndim > 1 for part in both)
        if unfit := [part for part in both if not _fits(source[part], target[part], rows)]:
            self.skipped += [_change(name, part, source[part], target[part]) for part in unfit]
            return
        for part in both:
            if source[part].shape == target[part].shape:
                target[part].copy_(source[part])
                self.taken += 1
            else:
                count = min(len(source[part]), len(target[part]))
                target[part][:count].copy_(source[part][:count])
                self.resized.append(_change(name, part, source[part], target[part]))


def _fits(source: Tensor, target: Tensor, rows: bool) -> bool:
    """Whether a tensor can be taken, whole or, where `rows` may differ, in the first of them."""
    if source.shape == target.shape and target.is_floating_point():
        return True
    if target.ndim and not target.is_floating_point():
        # Says what a configuration means (the grid of fsq), so it cannot be taken, but must agree.
        return torch.equal(source.to(target.device), target)
    return source.ndim == target.ndim and source.shape[1:] == target.shape[1:] and (rows or not target.ndim)


def _change(name: str, part: str, source: Tensor, target: Tensor) -> str:
    return f"{name}.{part} {tuple(source.shape)} -> {tuple(target.shape)}"


def _by_layer(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A state as {layer: {name in it: tensor}}, the tensors being those of the state."""
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        pair = next((part for part in (LENGTH, DIRECTION) if key.endswith(f".{part}")), None)
        name, _, part = (key.removesuffix(f".{pair}"), ".", pair) if pair else key.rpartition(".")
        layers.setdefault(name, {})[part] = value
    return layers


def _in_form(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer with its weight as the target keeps it: normed as a pair, or plain."""
    if LENGTH in target:
        return as_pair(source)
    return as_plain(source) if LENGTH in source else dict(source)
