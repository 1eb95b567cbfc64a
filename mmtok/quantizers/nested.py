"""What quantizers made of quantizers share: their parts and what those learn, names of stats, sums of losses."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmtok.quantizers.base import Quantizer, QuantizerConfig, quantizers
from mmtok.quantizers.digits import refuse_inner


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


class Nested(Quantizer):
    """A quantizer of `count` parts, each its own or one for all."""

    def _build(self, inner: QuantizerConfig, count: int, shared: bool) -> list[Quantizer]:
        """Make the parts; returns the distinct ones."""
        self.count, self.shared = count, shared
        built = [quantizers.build(inner) for _ in range(1 if shared else count)]
        refuse_inner(built[0])
        self.parts = nn.ModuleList(built)
        return built

    def _part(self, number: int) -> Quantizer:
        part = self.parts[0 if self.shared else number]
        assert isinstance(part, Quantizer)
        return part

    def absorb(self, stats: Mapping[str, Tensor]) -> None:
        owned = [of_part(number, stats) for number in range(self.count)]
        if not self.shared:
            for number, own in enumerate(owned):
                if self._part(number).learns:  # the parts may differ
                    self._part(number).absorb(own)
            return
        merged: dict[str, Tensor] = {}
        for own in owned:
            merged = self._part(0).merge(merged, own)
        self._part(0).absorb(merged)
