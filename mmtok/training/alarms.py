"""Two of the survey's failure signatures as numbers with thresholds: blur and semantic drift.

The third, collapse, is `quantizers/usage.py`. No system publishes thresholds for these, so ours are a stated choice;
each is a setting, and docs/dashboards.md says what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmtok.schema import ConfigError


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """When to speak up. Every alarm is one line when it rises, one when it clears, and a scalar `alarm/*` of 0 or 1."""

    after_steps: int = 1000
    """No alarm of blur or drift before this update: young reconstructions are blurred, and young ids say little."""
    blur_min: float = 0.03
    """Blur: least share of the input's high-frequency energy that a reconstruction must hold. A Gaussian blur of one
    pixel leaves this much."""
    gap_max_db: float = 6.0
    """Quantization gap: most dB of PSNR that quantizing may cost against decoding the latents directly."""
    drift_max: float = 0.5
    """Drift: most of the kNN probe's best lead over chance that may be lost, two validations in a row."""
    probe_samples: int = 1000
    """Validation samples whose ids are probed; 0 turns the probe off."""
    probe_neighbours: int = 10
    """Neighbours that vote."""

    def __post_init__(self) -> None:
        if not 0 <= self.blur_min < 1 or not 0 < self.drift_max <= 1:
            raise ConfigError(
                f"log.alarms: blur_min={self.blur_min} must be in [0, 1) and drift_max={self.drift_max} in (0, 1]."
            )
        if self.probe_neighbours < 1 or self.probe_samples < 0:
            raise ConfigError("log.alarms: probe_neighbours must be at least 1, and probe_samples at least 0.")


class Alarm:
    """Rises once, clears once: says something only when its state changes."""

    def __init__(self, name: str, after: int = 1) -> None:
        self.name = name
        self.after = after
        """Readings in a row it takes to rise."""
        self.raised = False
        self._bad = 0

    def read(self, bad: bool) -> str | None:
        """Take a reading; returns 'rises', 'clears' or None where nothing changed."""
        self._bad = self._bad + 1 if bad else 0
        if not self.raised and self._bad >= self.after:
            self.raised = True
            return "rises"
        if self.raised and not bad:
            self.raised = False
            return "clears"
        return None

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint, so that a restart does not repeat the line."""
        return {"raised": self.raised, "bad": self._bad}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self.raised, self._bad = bool(state["raised"]), int(state["bad"])


def blur_line(step: int, ratio: float, gap_db: float, config: AlarmConfig) -> str:
    """The line of a blur alarm: what, how much, and which half of the model to look at."""
    if gap_db > 2.0:
        cause = f"Without the quantizer it is {gap_db:.1f} dB better: give it more codes, levels or positions."
    else:
        cost = f"costs only {gap_db:.1f} dB" if gap_db > 0 else "costs nothing"
        cause = (
            f"The quantizer {cost}, so it is the network or the objective: "
            "try a perceptual or adversarial term, more channels, or more steps."
        )
    return (
        f"ALARM blur at step {step:,}: reconstructions hold {100 * ratio:.1f} % of the input's fine detail "
        f"(below {100 * config.blur_min:.0f} %). {cause}"
    )


def gap_line(step: int, gap_db: float, config: AlarmConfig) -> str:
    """The line of a gap alarm."""
    return (
        f"ALARM quantization gap at step {step:,}: quantizing costs {gap_db:.1f} dB of PSNR (above "
        f"{config.gap_max_db:g}). The decoder could do more than the codes tell it: try more codes, levels or "
        "positions, k-means initialisation, or a higher commitment weight."
    )


def drift_line(step: int, accuracy: float, best: float, chance: float) -> str:
    """The line of a drift alarm."""
    return (
        f"ALARM semantic drift at step {step:,}: nearest neighbours by ids find the class in {100 * accuracy:.0f} % of "
        f"cases; it was {100 * best:.0f} %, chance is {100 * chance:.0f} %. The ids mean less than they did: try a "
        "lower optim.lr, a slower codebook (ema_decay), fewer restarts, or a semantic loss."
    )
