"""How a codebook is used: measures from counts, a state that names what is wrong, and the window that gathers them.

One number is not enough: the Gini coefficient cannot tell dead codes from one hog, a heavy tail or too few samples, so
it is read beside the active fraction and the perplexity. The survey of discrete tokenizers (arXiv 2502.12448) is quoted
with "flag a Gini coefficient below 0.3"; Gini measures *in*equality, so taken literally that flags the healthiest runs
and never a collapse. Here it is read as evenness = 1 - Gini < 0.3. That reading, and every threshold below, is ours.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import exp, log, log10, sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class UsageConfig:
    """Where the states of usage begin, and what the trainer does about the worst."""

    evenness_min: float = 0.3
    """Below it a codebook is `skewed`: 1 - Gini, our reading of the survey's inverted "Gini below 0.3"."""
    active_min: float = 0.1
    """Below this fraction of codes in use it is `collapsed`."""
    ppl_norm_min: float = 0.02
    """Below this perplexity over codebook size it is `collapsed`. Low, since Zipf's law gives 0.06 at 16,384 codes."""
    top1_max: float = 0.5
    """Above this share of the most frequent code it is `collapsed`, whatever else is in use."""
    partial_active_min: float = 0.5
    """Below this fraction of codes in use it is `partial`."""
    partial_ppl_norm_min: float = 0.1
    """Below this perplexity over codebook size it is `partial`."""
    healthy_active_min: float = 0.95
    """From this fraction of codes in use, and evenly enough, it is `healthy`."""
    tokens_per_code_min: float = 32.0
    """Below it the state is `n/a`: at 4 tokens a code even uniform use measures a Gini of 0.27."""
    patience: int = 2
    """Measured windows in a row that must be as bad before anything is raised."""
    action: Literal["warn", "revive", "stop"] = "warn"
    """What the trainer does at `collapsed`: say so, restart dead codes, or stop the run. Milder states only warn."""

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"usage.patience must be at least 1 window, got {self.patience}")
        if self.tokens_per_code_min <= 0:
            raise ValueError(f"usage.tokens_per_code_min must be above 0, got {self.tokens_per_code_min}")


class UsageState(StrEnum):
    """What the use of a codebook amounts to, worst first; `n/a` where too few tokens were counted to tell."""

    COLLAPSED = "collapsed"
    PARTIAL = "partial"
    SKEWED = "skewed"
    OK = "ok"
    HEALTHY = "healthy"
    UNKNOWN = "n/a"


ALARMS = (UsageState.COLLAPSED, UsageState.PARTIAL, UsageState.SKEWED)
"""States worth a warning, worst first."""


@dataclass(frozen=True)
class Usage:
    """Measures of one codebook over one window. Ratios of an empty window are 0."""

    size: int
    """Codes in the codebook, K."""
    tokens: int
    """Tokens counted, N."""
    tokens_per_code: float
    """N / K, lambda."""
    active: float
    """Fraction of codes that occur at all."""
    active_expected: float
    """`active` over 1 - exp(-lambda), what uniform use would show of so few tokens."""
    live: float
    """Fraction of codes with more than a tenth of their uniform share."""
    perplexity: float
    """exp(entropy): the number of equally frequent codes that would carry as much."""
    perplexity_norm: float
    """Perplexity / K."""
    entropy_norm: float
    """Entropy / log K."""
    gini: float
    """Inequality of the counts: 0 where all are equal, 1 - 1/K where one code takes all."""
    evenness: float
    """1 - Gini."""
    top1_share: float
    """Share of the most frequent code."""

    def scalars(self) -> dict[str, float]:
        """Every measure by its name, for a logger."""
        return {name: float(value) for name, value in asdict(self).items()}

    def state(self, config: UsageConfig | None = None) -> UsageState:
        """The state these measures amount to; collapsed > partial > skewed > healthy > ok."""
        c = config or UsageConfig()
        if self.tokens_per_code < c.tokens_per_code_min:
            return UsageState.UNKNOWN
        if self.active < c.active_min or self.perplexity_norm < c.ppl_norm_min or self.top1_share > c.top1_max:
            return UsageState.COLLAPSED
        if self.active < c.partial_active_min or self.perplexity_norm < c.partial_ppl_norm_min:
            return UsageState.PARTIAL
        if self.evenness < c.evenness_min:
            return UsageState.SKEWED
        return UsageState.HEALTHY if self.active >= c.healthy_active_min else UsageState.OK


def measure(counts: Tensor) -> Usage:
    """Counts (K,) of one codebook, summed over ranks already -> its measures. Reads the device once."""
    assert counts.ndim == 1, f"counts are (codes,), got {tuple(counts.shape)}"
    x = counts.detach().cpu().double().sort().values
    size, total = len(x), float(x.sum())
    if total == 0:
        return Usage(size, 0, *(0.0,) * 10)
    p = x / total
    entropy = float(torch.special.entr(p).sum())
    ranks = torch.arange(1, size + 1, dtype=torch.float64)
    gini = float(((2 * ranks - size - 1) * p).sum()) / size
    load, active = total / size, float((x > 0).double().mean())
    return Usage(
        size=size,
        tokens=round(total),
        tokens_per_code=load,
        active=active,
        active_expected=active / (1 - exp(-load)),
        live=float((p > 0.1 / size).double().mean()),
        perplexity=exp(entropy),
        perplexity_norm=exp(entropy) / size,
        entropy_norm=entropy / log(size) if size > 1 else 1.0,
        gini=gini,
        evenness=1 - gini,
        top1_share=float(p[-1]),
    )


@dataclass(frozen=True)
class BitUsage:
    """Measures of the bits of a binary code. They need no 32 tokens a code: they tell of 2^18 codes too."""

    entropy: Tensor
    """(d,) entropy of each bit, in bits: 1 where it is set half the time."""
    correlation: Tensor
    """(d, d) Pearson correlation of each pair; 0 beside a constant bit."""
    dead: Tensor
    """(d,) bool, True where a bit takes one value at least 99 times in a hundred."""

    def scalars(self) -> dict[str, float]:
        """The summary a log has room for."""
        off = self.correlation - torch.diag(self.correlation.diagonal())
        return {
            "bit_entropy_min": float(self.entropy.min()),
            "bit_entropy_mean": float(self.entropy.mean()),
            "bit_correlation_max": float(off.abs().max()),
            "bits_dead": float(self.dead.sum()),
        }


def measure_bits(products: Tensor, tokens: int) -> BitUsage:
    """Sums of b b^T over codes of d bits (d, d), and their number -> measures of the bits."""
    joint = products.detach().cpu().double() / max(tokens, 1)
    mean = joint.diagonal()
    deviation = (mean * (1 - mean)).clamp(min=0).sqrt()
    scale = deviation[:, None] * deviation
    correlation = torch.where(scale > 1e-12, (joint - mean[:, None] * mean) / scale.clamp(min=1e-12), 0.0)
    entropy = (torch.special.entr(mean) + torch.special.entr(1 - mean)) / log(2)
    return BitUsage(entropy, correlation, torch.minimum(mean, 1 - mean) <= 0.01)


@dataclass(frozen=True)
class LevelEnergy:
    """What one residual level takes off the latents."""

    gain_db: float
    """Energy of what came into the level over what it left, in dB. Below 0 the level adds error."""
    residual_ratio: float
    """Norm of what is left after the level over the norm of the latents that came into the first."""

    def scalars(self) -> dict[str, float]:
        """Both by name, for a logger."""
        return asdict(self)


class LevelUsage(NamedTuple):
    """All that a window says of one codebook."""

    usage: Usage
    bits: BitUsage | None = None
    """For binary codes (lfq)."""
    energy: LevelEnergy | None = None
    """For residual levels: of the innermost this codebook is part of."""

    def scalars(self) -> dict[str, float]:
        """Every measure by name, for a logger."""
        parts = (part.scalars() for part in self if part is not None)
        return {name: value for part in parts for name, value in part.items()}


class UsageWindow:
    """Sums of the stats of many steps, kept on their device. Nothing waits for the device before `read`.

    Ranks are summed before any ratio: pass `sums` through an all-reduce of sums, and give `read` the result.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, stats: Mapping[str, Tensor]) -> None:
        """Take what usage needs of one step's stats, and leave the rest."""
        for key, value in stats.items():
            if (kind := _WANTED.get(key.rpartition(".")[2])) is None:
                continue
            value = value.detach().to(kind)
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()

    def clear(self) -> None:
        """Begin the next window."""
        self.sums = {}

    def read(self, sums: Mapping[str, Tensor] | None = None) -> dict[str, LevelUsage]:
        """Measures by codebook, in the order of levels, named as in the stats: "0", "1.2", or "" where there is one."""
        host = {key: value.cpu() for key, value in (self.sums if sums is None else sums).items()}
        levels = [key.rpartition(".")[0] for key in host if key.rpartition(".")[2] == "counts"]
        energies = _energies(host)
        out = {}
        for level in sorted(levels, key=_order):
            prefix = f"{level}." if level else ""
            usage = measure(host[f"{prefix}counts"])
            products = host.get(f"{prefix}bit_products")
            bits = None if products is None else measure_bits(products, usage.tokens)
            parents = (level.rsplit(".", depth)[0] for depth in range(level.count(".") + 1))
            energy = next((energies[parent] for parent in parents if parent in energies), None)
            out[level] = LevelUsage(usage, bits, energy)
        return out


_WANTED = {
    "counts": torch.int64,
    "bit_products": torch.int64,
    "input_sq": torch.float32,
    "residual_sq": torch.float32,
}
"""Stats a window gathers, by the last part of their key: sums over tokens, so that steps and ranks add up."""


def _order(level: str) -> tuple[int, ...]:
    return tuple(int(part) for part in level.split(".") if part)


def _energies(host: Mapping[str, Tensor]) -> dict[str, LevelEnergy]:
    """Gain and residual ratio of every level that has energies; the ratio multiplies up along its chain of levels.

    Each level has its own pair of sums, since a dropped level sees fewer tokens than the one before it.
    """
    remaining: dict[str, float] = defaultdict(lambda: 1.0)
    out = {}
    for level in sorted((key.rpartition(".")[0] for key in host if key.endswith("residual_sq")), key=_order):
        before, after = float(host[f"{level}.input_sq"]), float(host[f"{level}.residual_sq"])
        chain = level.rpartition(".")[0]
        remaining[chain] *= after / before if before > 0 else 1.0
        gain = 10 * log10(before / after) if before > 0 and after > 0 else 0.0
        out[level] = LevelEnergy(gain, sqrt(remaining[chain]))
    return out


class UsageWatch:
    """Turns the states of successive windows into alarms: only what lasts `patience` measured windows is raised."""

    def __init__(self, config: UsageConfig | None = None) -> None:
        self.config = config or UsageConfig()
        self._recent: dict[str, deque[UsageState]] = defaultdict(lambda: deque(maxlen=self.config.patience))

    def observe(self, name: str, state: UsageState) -> UsageState | None:
        """The state of one more window -> the mildest of the last `patience`, if all of them were alarms.

        Windows of too few tokens (`n/a`) neither count nor interrupt.
        """
        recent = self._recent[name]
        if state is not UsageState.UNKNOWN:
            recent.append(state)
        if len(recent) < self.config.patience or any(past not in ALARMS for past in recent):
            return None
        return max(recent, key=ALARMS.index)

    def state_dict(self) -> dict[str, list[str]]:
        """Recent states as plain containers, for a checkpoint."""
        return {name: [str(state) for state in recent] for name, recent in self._recent.items()}

    def load_state_dict(self, state: Mapping[str, Iterable[str]]) -> None:
        """What `state_dict` gave."""
        self._recent.clear()
        for name, recent in state.items():
            self._recent[name].extend(UsageState(item) for item in recent)
