"""Runs every quantizer as one rank of a world, and saves what it saw: `python two_ranks.py RANK WORLD PORT OUT`.

A script and not a test: started as a process a rank, once for all names, because starting is what takes the time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mmtok.quantizers import Quantizer, build_quantizer, quantizer_names

DIM, BATCH, POSITIONS, STEPS = 16, 8, 24, 3
GRID = (4, 6)
KEEPS = {"init": "kmeans", "restart": 0.3, "codebook_size": 32}
ENTROPY = {"entropy_weight": 0.3, "entropy_temperature": 0.5, "diversity": 0.7}
VARIANTS: dict[str, dict[str, Any]] = {
    "vq-kept": {"name": "vq", **KEEPS},
    "vq-gradient": {"name": "vq", "learn": "gradient", **KEEPS},
    "vq-low": {"name": "vq", "code_dim": 4, "l2": True, **KEEPS},
    "rq-rotate": {"name": "rq", "gradient": "rotate", "depth": 3, **KEEPS},
    "vq-blend": {"name": "vq", "restart_policy": "blend", **KEEPS},
    "simvq-low": {"name": "simvq", "code_dim": 4, "codebook_size": 32, "l2": True},
    "ibq-low": {"name": "ibq", "code_dim": 4, "codebook_size": 32, "l2": True, **ENTROPY},
    "simvq-entropy": {"name": "simvq", "codebook_size": 32, **ENTROPY},
    "rq-absent": {"name": "rq", "depth": 3, "dropout": 0.5, "absent": "learned", **KEEPS},
    "rq-entropy": {"name": "rq", "depth": 2, **KEEPS, **ENTROPY},
    "bsq-groups": {"name": "bsq", "bits": 7, "group_size": 3, "temperature": 0.5, "entropy_weight": 0.5},
    "gumbel-soft": {"name": "gumbel", "codebook_size": 32, "straight": False, "anneal_updates": 2, "kl_weight": 0.1},
    "multiscale-kept": {"name": "multiscale", "scales": [1, 2, 4], "mends": 2, **KEEPS, **ENTROPY},
    "rq-beam": {"name": "rq", "depth": 3, "train_beam": 3, "dropout": 0.5, **KEEPS},
    "rq-shared": {"name": "rq", "shared": True, "depth": 3, **KEEPS},
    "pq-shared": {"name": "pq", "shared": True, **KEEPS},
    "rq-dropout": {"name": "rq", "depth": 3, "dropout": 1.0, **KEEPS},
    "residual-fsq": {"name": "residual", "inner": "fsq", "depth": 2, "shrink": 0.25},
    "split-dropout": {
        "name": "split",
        "semantic": {"name": "vq", **KEEPS},
        "acoustic": {"name": "rq", "depth": 3, "dropout": 0.7, **KEEPS},
        "bypass": 0.3,
    },
    "split-fsq": {"name": "split", "semantic": "fsq", "acoustic": "vq", "inner_dim": 8, "bypass": 0.3},
    "product-rq": {"name": "product", "inner": {"name": "rq", "depth": 2, "codebook_size": 16}, "groups": 2},
}
CASES: dict[str, dict[str, Any]] = {name: {"name": name} for name in quantizer_names()} | VARIANTS


def run(block: dict[str, Any], rank: int, world: int, masked: bool) -> dict[str, Any]:
    """A few training steps on this rank's slots of the global batch (rank, rank + world, ... as in the stream)."""
    torch.manual_seed(0)
    quantizer = build_quantizer(block, dim=DIM)
    draws = torch.Generator().manual_seed(1)
    steps = []
    for _ in range(STEPS):
        z = torch.randn(BATCH, POSITIONS, DIM, generator=draws)
        target = torch.randn(BATCH, POSITIONS, DIM, generator=draws)
        mask = torch.arange(POSITIONS) < torch.randint(1, POSITIONS, (BATCH, 1), generator=draws) if masked else None
        levels = quantizer.draw_levels(BATCH, draws)
        seeds = torch.randint(2**62, (BATCH,), generator=draws)
        mine = slice(rank, None, world)
        part = [None if whole is None else whole[mine] for whole in (z, target, mask, levels, seeds)]
        steps.append(_step(quantizer, world, *part))
    return {"steps": steps, "state": quantizer.state_dict()}


def _step(quantizer: Quantizer, world: int, z: Any, target: Any, mask: Any, levels: Any, seeds: Any) -> dict[str, Any]:
    z = z.clone().requires_grad_()
    out = quantizer(z, mask, grid=GRID, levels=levels, seed=seeds)
    # Scaled so that the mean over ranks, which DDP takes, is the sum over the whole batch.
    objective = (out.values * target).sum() * world + sum(out.losses.values())
    parameters = dict(quantizer.named_parameters())
    found = torch.autograd.grad(objective, [z, *parameters.values()], allow_unused=True, materialize_grads=True)
    losses = {name: term.detach().clone() for name, term in out.losses.items()}
    gradients = dict(zip(parameters, found[1:], strict=True))
    for value in [*losses.values(), *gradients.values()]:
        if world > 1:
            dist.all_reduce(value)
        value /= world
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter -= 1e-3 * gradients[name]
    quantizer.update(out.stats)
    return {"ids": out.ids, "values": out.values.detach(), "z": found[0] / world, "losses": losses, "grads": gradients}


def main() -> None:
    rank, world, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    seen = {
        (name, masked): run(block, rank, world, masked)
        for name, block in CASES.items()
        for masked in (False, True)
        if not (masked and block["name"] == "multiscale")  # which takes no mask
    }
    torch.save(seen, out / f"{rank}of{world}.pt")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
