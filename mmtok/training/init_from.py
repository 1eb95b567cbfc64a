"""Start a run from another's weights, and say what was taken, resized and skipped."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.loading import load
from mmtok.training.module import TokenizerModule


def initialise(module: TokenizerModule, path: str) -> list[str]:
    """Copy what fits from the tokenizer at `path` into the module (and its average).

    A tensor of another length along its first axis (a codebook of another size, say) is taken as far as it goes.

    Returns:
        Lines that say what happened to every tensor, in groups.
    """
    source = load(path).state_dict()
    target = module.tokenizer.state_dict()
    taken = [name for name, value in target.items() if name in source and source[name].shape == value.shape]
    resized = [name for name, value in target.items() if name not in taken and _resizable(source.get(name), value)]
    fresh = [name for name in target if name not in {*taken, *resized}]
    unused = [name for name in source if name not in target]
    with torch.no_grad():
        for name in taken:
            target[name].copy_(source[name])
        for name in resized:
            rows = min(len(source[name]), len(target[name]))
            target[name][:rows].copy_(source[name][:rows])
    # As from a checkpoint: a quantizer that was initialised must know it, or k-means would replace the codes again.
    module.tokenizer.load_state_dict(target)
    if module.ema is not None:
        module.ema.load_state_dict(module.tokenizer.state_dict())
    if not taken and not resized:
        raise ValueError(f"init_from={path}: not one tensor fits this tokenizer. Compare the two config.yaml files.")
    return [
        f"init_from {path}: {len(taken)} tensors taken",
        *(f"  resized: {name} {tuple(source[name].shape)} -> {tuple(target[name].shape)}" for name in resized),
        *(f"  new: {name}" for name in fresh),
        *(f"  not used: {name}" for name in unused),
    ]


def _resizable(source: Tensor | None, target: Tensor) -> bool:
    return source is not None and source.ndim == target.ndim >= 2 and source.shape[1:] == target.shape[1:]
