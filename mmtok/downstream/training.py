"""One way to train every model that is compared: the same updates, the same stop, the same choice of a rate."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Budget:
    """What each model may use, alike for all."""

    updates: int = 1500
    """At most."""
    batch: int = 128
    """Sequences, or queries, of an update."""
    rates: tuple[float, ...] = (1e-3, 3e-3)
    """Learning rates that are tried on the first seed; validation picks the one for all seeds."""
    every: int = 100
    """Updates from one validation to the next."""
    patience: int = 4
    """Validations without a better one, after which training ends."""
    weight_decay: float = 0.01
    """Of AdamW."""

    def __post_init__(self) -> None:
        require_floors(self, updates=1, batch=1, every=1, patience=1)
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates={list(self.rates)} must be one or more numbers above 0.")


def require_floors(config: object, **floors: int) -> None:
    """Refuse settings below what makes sense.

    Raises:
        ValueError: names the setting.
    """
    for name, floor in floors.items():
        if getattr(config, name) < floor:
            raise ValueError(f"{name}={getattr(config, name)} must be at least {floor}.")


class Trained(NamedTuple):
    """How a training went. The model has the weights of its best validation."""

    score: float
    """Of the best validation; higher is better."""
    rate: float
    updates: int
    """Until the best validation."""
    parameters: int
    seconds: float
    """Of the process' CPUs, for all updates and validations until it stopped."""

    def told(self, figures: dict[str, float]) -> dict[str, float]:
        """The figures of a training beside those of its model, and what a row says of it."""
        figures |= {"parameters": self.parameters, "updates": self.updates, "CPU s": self.seconds}
        return {"rate": self.rate, "validation": self.score}


def train(
    model: nn.Module,
    losses: Callable[[], Iterator[Tensor]],
    validate: Callable[[], float],
    budget: Budget,
    rate: float,
) -> Trained:
    """Train until the budget is spent or validation has not got better for a while.

    Args:
        model: whose weights are trained.
        losses: gives an iterator of the loss of one batch after another.
        validate: the score of the model as it stands; higher is better.
        budget: of updates.
        rate: learning rate, after a warm-up of a twentieth of the updates.

    Raises:
        ValueError: the loss is no number any more.
    """
    began = time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), rate, betas=(0.9, 0.98), weight_decay=budget.weight_decay)
    warm = max(1, budget.updates // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warm))
    best, at, weights = -1.0, 0, copy.deepcopy(model.state_dict())
    source = losses()
    for step in range(1, budget.updates + 1):
        model.train()
        loss = next(source)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % budget.every and step < budget.updates:
            continue
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {float(loss)} at update {step} with the rate {rate:g}. Try lower rates.")
        score = validated(model, validate)
        if score > best:
            best, at, weights = score, step, copy.deepcopy(model.state_dict())
        elif step - at >= budget.patience * budget.every:
            break
    model.load_state_dict(weights)
    model.eval()
    return Trained(best, rate, at, sum(one.numel() for one in model.parameters()), time.process_time() - began)


def validated(model: nn.Module, validate: Callable[[], float]) -> float:
    """A score of the model in eval mode."""
    model.eval()
    with torch.no_grad():
        return validate()


def best_of(rates: tuple[float, ...], one: Callable[[float], tuple[M, Trained]]) -> tuple[M, Trained]:
    """The model of the rate that validation likes best."""
    return max((one(rate) for rate in rates), key=lambda pair: pair[1].score)
