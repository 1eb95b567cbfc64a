"""The measure `lengths` of a comparison: what codes cut short are worth, and how many of them a quality takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmtok.compare.asked import check_asked
from mmtok.compare.subject import Subject
from mmtok.evaluation.lengths import measure_digits, measure_lengths, unpadded
from mmtok.evaluation.report import finite
from mmtok.tokenizers.axis import ladder_of, steps_of


@dataclass(frozen=True)
class LengthsConfig:
    """What `lengths` is asked."""

    samples: int = 256
    """Held-out items."""
    targets: str = ""
    """Qualities in dB with commas between them, which are searched for: PSNR of pictures, else signal to noise."""

    def __post_init__(self) -> None:
        check_asked(self)
        if not all(_is_number(part) for part in self._parts()):
            raise ValueError(f"targets={self.targets} must be numbers with commas between them, as 20,24.")

    @property
    def decibels(self) -> list[float]:
        """The targets."""
        return [float(part) for part in self._parts()]

    def _parts(self) -> list[str]:
        return self.targets.split(",") if self.targets else []


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def lengths(subject: Subject, asked: LengthsConfig) -> dict[str, Any]:
    """Quality of items decoded from so many steps, and the tokens that each wanted quality takes, item by item."""
    tokenizer = subject.tokenizer
    digits = tokenizer.quantizer.digits if tokenizer.quantizer.drops_digits else 0
    if tokenizer.axis is None and not digits:
        return {"figures": {}, "absent": "codes have one length"}
    if tokenizer.gives != "signals":
        return {"figures": {}, "absent": "texts have no signal-to-noise ratio; see byte_accuracy_levels_*"}
    signals = unpadded(subject.held_out(asked.samples), subject.device)
    if tokenizer.axis is None:
        found = measure_digits(tokenizer.to(subject.device), signals, range(1, digits + 1))
    else:
        found = measure_lengths(tokenizer.to(subject.device), signals, ladder_of(steps_of(tokenizer)), asked.decibels)
    kind = "digits" if tokenizer.axis is None else "length"
    figures = {f"{found.quality}_{kind}_{row['steps']:.0f}": row[found.quality] for row in found.by_length}
    for one in found.searched:
        figures |= {f"tokens_for_{one.target:g}_db": one.tokens, f"met_{one.target:g}_db": one.met}
    return {"figures": figures, "result": finite(found.to_dict())}
