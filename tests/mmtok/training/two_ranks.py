"""Losses that meet over ranks, as one rank of a world: `two_ranks.py RANK WORLD PORT OUT`. See test_two_ranks.py.

A script and not a test: started as a process a rank, once for all, because starting is what takes the time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.losses import losses
from mmtok.losses.base import Loss, Outcome
from mmtok.losses.contrastive import ContrastiveConfig
from mmtok.losses.semantic import DistillConfig
from mmtok.training.balance import balanced

BATCH, POSITIONS, DIM, FEATURES = 6, 5, 4, 3
SPEC = CodeSpec("image", (16,), downsample=4)


def term(name: str) -> Loss:
    """A loss of meaning, the same on every rank."""
    torch.manual_seed(0)
    if name == "contrastive":
        return losses.build(ContrastiveConfig(features=FEATURES, width=4).filled(SPEC, DIM))
    return losses.build(DistillConfig(features=FEATURES, levels="all", pool=True).filled(SPEC, DIM))


def outcome(rank: int, world: int) -> Outcome:
    """This rank's slots (rank, rank + world, ...) of a global batch; each item keeps some first positions."""
    draws = torch.Generator().manual_seed(1)
    values = torch.randn(BATCH, POSITIONS, DIM, generator=draws)
    teacher = torch.randn(BATCH, FEATURES, generator=draws)
    kept = torch.arange(POSITIONS) < torch.randint(1, POSITIONS + 1, (BATCH, 1), generator=draws)
    mine = slice(rank, None, world)
    x = torch.zeros(len(values[mine]), 3, 4, 4)
    return Outcome(
        x, x, values=values[mine].clone().requires_grad_(), positions=kept[mine], batch={"teacher": teacher[mine]}
    )


def mean(value: Tensor, world: int) -> Tensor:
    """As DDP averages gradients."""
    value = value.detach().clone()
    if world > 1:
        dist.all_reduce(value)
    return value / world


def gradients(name: str, rank: int, world: int, balance: bool) -> dict[str, Any]:
    """The loss of the global batch, and its gradients at all that learns and at this rank's values."""
    loss, given = term(name), outcome(rank, world)
    assert given.values is not None
    terms = {"pixel": (given.values * (1 + given.batch["teacher"].sum(1)[:, None, None])).square().mean()}
    terms["meaning"] = loss.measure(given)
    terms = balanced(terms, {"meaning": 0.5} if balance else {}, given.values)
    at = [*loss.parameters(), given.values]
    found = torch.autograd.grad(torch.stack(list(terms.values())).sum(), at)
    return {
        "loss": mean(terms["meaning"], world),
        "parameters": [mean(gradient, world) for gradient in found[:-1]],
        "values": found[-1] / world,
    }


def lonely(rank: int, world: int) -> Tensor:
    """Gradient of a mean over valid elements, of which there is a single one in the global batch."""
    loss = losses.build("l2")
    x = torch.full((2, 1, 3), 2.0, requires_grad=True)
    mask = torch.zeros(2, 1, 3, dtype=torch.bool)
    mask[0, 0, 0] = rank == 0
    (gradient,) = torch.autograd.grad(loss(x, torch.zeros_like(x), mask), x)
    return mean(gradient, world)


def validated(rank: int) -> Tensor:
    """A term of a validation batch of which one rank has no item, and the other some: nobody waits for anybody."""
    given = outcome(0, 2 if rank == 0 else 1)
    count = 0 if rank == 1 else len(given.x)
    few = Outcome(
        given.x[:count], given.x[:count], values=given.values[:count], batch={"teacher": given.batch["teacher"][:count]}
    )
    with torch.no_grad():
        return term("contrastive").measure(few)


def main() -> None:
    rank, world, port, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    seen: dict[Any, Any] = {
        (name, balance): gradients(name, rank, world, balance)
        for name in ("contrastive", "distill")
        for balance in (False, True)
    }
    seen |= {"lonely": lonely(rank, world), "validated": validated(rank)}
    torch.save(seen, out / f"{rank}of{world}.pt")
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
