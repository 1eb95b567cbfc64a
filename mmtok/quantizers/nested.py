"""What quantizers made of quantizers share: names of stats, and sums of losses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def prefixed(part: int, stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stats of a part as entries of the whole: "counts" of part 3 is "3.counts"."""
    return {f"{part}.{name}": value for name, value in stats.items()}


def of_part(part: int, stats: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `prefixed`."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in stats.items() if name.startswith(prefix)}


def add_losses(total: dict[str, Tensor], losses: Mapping[str, Tensor], weight: float = 1.0) -> None:
    """Add the terms of a part, times a weight, to those of the whole, by name."""
    for name, term in losses.items():
        total[name] = total[name] + weight * term if name in total else weight * term
