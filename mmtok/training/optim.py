"""Optimisers, learning rates and averaged weights: functions of the step, so that a resumed run repeats them."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer

from mmtok.training.settings import OptimConfig


def build_optimizer(config: OptimConfig, modules: Iterable[nn.Module]) -> Optimizer:
    """The optimiser over the trainable parameters; weight decay only where a parameter has two axes or more."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2]
    plain = [p for p in parameters if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # Fused: one kernel over all parameters, on the CPU as well; 2 to 5 times faster than a loop for small networks.
    if config.name == "adam":
        return Adam(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
    return AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def learning_rate(config: OptimConfig, step: int, max_steps: int) -> float:
    """Learning rate of update `step` (from 0). Stateless: what a scheduler would have to save and restore."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = min(1.0, (step - config.warmup_steps) / max(1, max_steps - config.warmup_steps))
    shape = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + cos(pi * done))}[config.schedule]
    return config.lr * (config.final_lr + (1 - config.final_lr) * shape if config.schedule != "constant" else 1.0)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The same learning rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def gradient_norm(parameters: Iterable[Tensor], clip: float) -> Tensor:
    """Norm of all gradients before clipping to `clip` (0 = no clipping), as a 0-d tensor on their device."""
    return nn.utils.clip_grad_norm_(parameters, clip if clip > 0 else float("inf"), foreach=True)


@torch.no_grad()
def update_average(average: nn.Module, module: nn.Module, decay: float, step: int) -> None:
    """Move `average` towards `module`: parameters blended, buffers copied.

    Buffers are copied because an EMA codebook averaged twice no longer fits its encoder, and counters have no average
    at all. Early on the decay is (1 + step) / (10 + step), so that the average forgets the random start.
    """
    weight = 1 - min(decay, (1 + step) / (10 + step))
    targets: list[Tensor] = list(average.parameters())
    sources: list[Tensor] = list(module.parameters())
    torch._foreach_lerp_(targets, sources, weight)
    for target, source in zip(average.buffers(), module.buffers(), strict=True):
        target.copy_(source)
