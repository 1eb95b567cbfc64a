"""Codebook usage: counts of the training steps, summed over ranks, named by a state, and acted upon."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log2
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from mmtok.quantizers.usage import LevelUsage, Usage, UsageConfig, UsageState, UsageWatch, UsageWindow
from mmtok.training.loggers import RunLog
from mmtok.training.logs import LogConfig
from mmtok.training.memory import gather_states, own_states

SEVERITY = {
    UsageState.UNKNOWN: -1, UsageState.HEALTHY: 0, UsageState.OK: 1, UsageState.SKEWED: 2, UsageState.PARTIAL: 3,
    UsageState.COLLAPSED: 4,
}  # fmt: skip
"""States as they are logged."""

ADVICE = {
    UsageState.COLLAPSED: "Try log.usage.action=revive, k-means initialisation, low-dimensional l2 codes, or a smaller "
    "codebook; lfq: a higher entropy_weight.",
    UsageState.PARTIAL: "Try k-means initialisation, restarts of dead codes, or a smaller codebook.",
    UsageState.SKEWED: "Few codes carry most of the load. It may be the data; if not, try l2 codes or restarts.",
}


class CodebookUsage(Callback):
    """Reads usage every `log.usage_every_steps` updates, from the counts the quantizer made anyway.

    A window that holds too few tokens to judge is carried on until it holds enough.
    """

    def __init__(self, config: LogConfig, log: RunLog, say: Callable[[str], None]) -> None:
        self.config = config
        self.run_log = log
        self.say = say
        self.window = UsageWindow()
        self.watch = UsageWatch(config.usage)
        self._told: dict[str, str] = {}
        self._acted = False
        self._revived = False
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._step = trainer.global_step
        self.window.sums = {name: value.to(pl_module.device) for name, value in self.window.sums.items()}
        if self._revived:  # the switch is no part of the quantizer's state
            pl_module.tokenizer.quantizer.revive()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.window.add(outputs["quantized"].stats)
        step = trainer.global_step
        if step != self._step:
            self._step = step
            if step % self.config.usage_every_steps == 0:
                self.read(trainer, pl_module)

    def read(self, trainer: Trainer, module: Any) -> None:
        """Log the window; alarm, and act, where it says so. All ranks see the same counts and do the same."""
        if not any(name.rpartition(".")[2] == "counts" for name in self.window.sums):
            return  # nothing with codes: the 'none' quantizer
        sums = reduced(self.window.sums, trainer.world_size)
        levels = self.window.read(sums)
        states = {name: level.usage.state(self.config.usage) for name, level in levels.items()}
        values = usage_scalars(levels, states)
        raised = {name: alarm for name, state in states.items() if (alarm := self.watch.observe(name, state))}
        values["alarm/collapse"] = float(UsageState.COLLAPSED in raised.values())
        self.run_log.scalars(self._step, values)
        for name, level in levels.items():
            if trainer.is_global_zero:
                shares = log_shares(sums[f"{name}.counts" if name else "counts"])
                self.run_log.histogram(self._step, _join("usage/log10_share", name), shares)
            self._tell(trainer, name, raised.get(name), level.usage)
        if UsageState.COLLAPSED in raised.values():
            self._act(trainer, module)
        if UsageState.UNKNOWN not in states.values():
            self.window.clear()

    def _tell(self, trainer: Trainer, name: str, alarm: UsageState | None, usage: Usage) -> None:
        """One line when a level's alarm rises or changes, one when it clears."""
        before = self._told.get(name, "")
        after = str(alarm or "")
        if before == after:
            return
        self._told[name] = after
        if trainer.is_global_zero:
            self.say(
                alarm_line(self._step, name, alarm, usage, self.config.usage) if alarm else cleared(self._step, name)
            )

    def _act(self, trainer: Trainer, module: Any) -> None:
        """What `log.usage.action` asks for at a collapse."""
        action = self.config.usage.action
        if self._acted:
            return
        self._acted = True
        if action == "stop":
            trainer.should_stop = True
            text = "stopping, as log.usage.action=stop asks. The state is saved."
        elif action == "revive":
            self._revived = module.tokenizer.quantizer.revive()
            text = "unused codes restart from badly coded latents from now on."
            if not self._revived:
                text = "log.usage.action=revive has no effect, since this quantizer has no codes that could restart."
        else:
            return
        if trainer.is_global_zero:
            self.say(f"collapse at step {self._step:,}: {text}")

    def state_dict(self) -> dict[str, Any]:
        window = {name: value.cpu() for name, value in self.window.sums.items()}
        return {
            "window": gather_states(window), "watch": self.watch.state_dict(), "told": dict(self._told),
            "acted": self._acted, "revived": self._revived,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.watch.load_state_dict(state_dict["watch"])
        self._told = dict(state_dict["told"])
        self._acted, self._revived = bool(state_dict["acted"]), bool(state_dict["revived"])
        for window, share in own_states(state_dict["window"]):
            self.window.add({name: value * share for name, value in window.items()})


def reduced(sums: Mapping[str, Tensor], world: int) -> dict[str, Tensor]:
    """Sums over ranks: one all-reduce for the integers, which stay exact, and one for the rest."""
    if world == 1:
        return dict(sums)
    out: dict[str, Tensor] = {}
    for integer in (True, False):
        part = {name: sums[name] for name in sorted(sums) if (not sums[name].is_floating_point()) == integer}
        if not part:
            continue
        packed = torch.cat([value.flatten() for value in part.values()])
        torch.distributed.all_reduce(packed)
        pieces = packed.split([value.numel() for value in part.values()])
        out |= {name: piece.view_as(value) for (name, value), piece in zip(part.items(), pieces, strict=True)}
    return out


def entropy_of(levels: Mapping[str, LevelUsage]) -> float | None:
    """Bits of a position by how often each code occurred, sum of the levels; None where there are no codes."""
    if not levels:
        return None
    return sum(one.usage.entropy_norm * log2(one.usage.size) for one in levels.values())


def usage_scalars(levels: Mapping[str, LevelUsage], states: Mapping[str, UsageState] | None = None) -> dict[str, float]:
    """`usage/NAME` as the mean over levels, the worst state, and `usage/LEVEL/NAME` where there are several."""
    if not levels:
        return {}
    each = {name: level.scalars() for name, level in levels.items()}
    for name, level in levels.items():
        each[name]["state"] = float(SEVERITY[states[name] if states else level.usage.state()])
    shared = set.intersection(*(set(scalars) for scalars in each.values()))
    first = next(iter(each.values()))
    values = {
        f"usage/{key}": float(np.mean([scalars[key] for scalars in each.values()])) for key in first if key in shared
    }
    values["usage/state"] = max(scalars["state"] for scalars in each.values())
    if len(each) > 1:
        values |= {f"usage/{level}/{key}": value for level, scalars in each.items() for key, value in scalars.items()}
    return values


def log_shares(counts: Tensor) -> np.ndarray:
    """log10 of each code's share over the uniform share: 0 is even use; unused codes stand at -4."""
    share = counts.detach().double().cpu()
    share = share * len(share) / share.sum().clamp(min=1)
    return share.clamp(min=1e-4).log10().numpy()


def alarm_line(step: int, level: str, state: UsageState, usage: Usage, config: UsageConfig) -> str:
    """What happens, why, and what to try."""
    where = f" in level {level}" if level else ""
    return (
        f"ALARM codes {state}{where} at step {step:,}: {100 * usage.active:.0f} % of {usage.size:,} codes in "
        f"use, perplexity {usage.perplexity:,.0f}, the most frequent takes {100 * usage.top1_share:.0f} %, evenness "
        f"{usage.evenness:.2f}, over {config.patience} windows. {ADVICE[state]}"
    )


def cleared(step: int, level: str) -> str:
    """The line of an alarm that is over."""
    return f"codes{f' in level {level}' if level else ''} recovered at step {step:,}"


def _join(name: str, level: str) -> str:
    return f"{name}/{level}" if level else name
