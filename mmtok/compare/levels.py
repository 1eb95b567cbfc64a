"""Two measures of how codes are made up: what each further level buys, and whether bits are free of each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor

from mmtok.compare.asked import check_asked
from mmtok.compare.subject import Subject
from mmtok.evaluation.heldout import Signals
from mmtok.tokenizers.base import evaluating


@dataclass(frozen=True)
class LevelsConfig:
    """What `levels` is asked."""

    samples: int = 256
    """Held-out items."""

    def __post_init__(self) -> None:
        check_asked(self)


@dataclass(frozen=True)
class BitsConfig:
    """What `bits` is asked."""

    samples: int = 2000
    """Held-out items."""

    def __post_init__(self) -> None:
        check_asked(self)


@torch.inference_mode()
def levels(subject: Subject, asked: LevelsConfig) -> dict[str, Any]:
    """Signal-to-noise ratio of items decoded from their first levels alone, and what the last of them added."""
    tokenizer, depth = subject.tokenizer, subject.tokenizer.quantizer.depth
    if depth < 2:
        return {"figures": {}, "absent": "there is one level, which cannot be left out"}
    if tokenizer.gives != "signals":
        return {"figures": {}, "absent": "texts have no signal-to-noise ratio; see byte_accuracy_levels_*"}
    noise, signal = torch.zeros(depth, dtype=torch.float64), 0.0
    tokenizer.to(subject.device)
    with evaluating(tokenizer):
        for batch in Signals(subject.held_out(asked.samples)):
            x, lengths = batch["x"].to(subject.device), batch.get("lengths")
            inside = _inside(x, lengths)
            signal += float((x * inside).double().square().sum())
            for level in range(depth):
                y = tokenizer.decode(tokenizer.encode(x, lengths, budget=level + 1))
                noise[level] += float(((x - y) * inside).double().square().sum())
    db = [10 * log2(signal / max(one, 1e-12)) / log2(10) for one in noise.tolist()]
    figures = {f"snr_levels_{level + 1}": value for level, value in enumerate(db)}
    figures |= {f"snr_gain_level_{level + 1}": db[level] - db[level - 1] for level in range(1, depth)}
    return {"figures": figures}


def _inside(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Where there is signal, as ones that multiply (B, C, ...)."""
    if lengths is None:
        return x.new_ones(1)
    return (torch.arange(x.shape[2], device=x.device) < lengths.to(x.device)[:, None])[:, None].to(x.dtype)


def bits(subject: Subject, asked: BitsConfig) -> dict[str, Any]:
    """Whether the bits of an id are free of each other: the most correlation of a pair, and bits lost to dependence.

    Where the sum of the bits' entropies is far above the entropy of the ids, binary factors carry one thing twice.
    """
    sizes = subject.sizes
    if len(sizes) != 1 or sizes[0] & (sizes[0] - 1) or sizes[0] < 4:
        return {"figures": {}, "absent": "ids are not made of bits: one level of 2^n codes is wanted"}
    ids = subject.tokens(False, asked.samples).ids[:, 0].flatten()
    return {"figures": bit_figures(ids[ids >= 0], sizes[0].bit_length() - 1)}


def bit_figures(ids: Tensor, count: int) -> Mapping[str, float]:
    """Figures of ids (N,) of `count` bits."""
    table = (ids[:, None] >> torch.arange(count) & 1).double()
    share = table.mean(0)
    marginal = _entropy(torch.stack([share, 1 - share])).sum()
    counts = torch.bincount(ids, minlength=1 << count).double()
    joint = _entropy(counts / counts.sum())
    # Miller and Madow 1955: few samples of many codes look less random than they are.
    joint += (int((counts > 0).sum()) - 1) / (2 * len(ids)) / torch.log(torch.tensor(2.0))
    centred = (table - share) / (share * (1 - share)).sqrt().clamp(min=1e-6)
    correlation = (centred.T @ centred / len(ids)).fill_diagonal_(0).abs()
    return {
        "bit_correlation_max": float(correlation.max()),
        "bit_entropy_mean": float(marginal) / count,
        "bits_lost_to_dependence": max(0.0, float(marginal - joint)),
        "joint_entropy": float(joint),
    }


def _entropy(p: Tensor) -> Tensor:
    """Bits of a distribution along the first axis."""
    return -torch.xlogy(p, p).sum(0) / torch.log(torch.tensor(2.0, dtype=p.dtype))
