"""How much of a code to keep, item by item: so many tokens, so many bits, or as many as a quality takes.

What can be left out lies along one axis of a tokenizer, its end first: levels of a residual quantizer, or positions of
a 1-D tokenizer that was trained with nested dropout. Searching for the shortest code of a wanted quality follows
ElasticTok (Yan et al. 2024, arXiv 2410.08368), but each item for itself and without trusting that longer is better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, log2
from numbers import Integral, Real
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.tokenizers.axis import ladder_of, require_axis, steps_of
from mmtok.tokenizers.fidelity import Measure, counting, psnr, snr
from mmtok.tokenizers.predictor import require_predictor

if TYPE_CHECKING:
    from mmtok.tokenizers.base import Tokenizer
    from mmtok.tokenizers.latents import Latents


class Budget:
    """What `encode(x, budget=...)` takes beside a number of levels."""

    @property
    def decodes(self) -> bool:
        """Whether the decoder is needed."""
        return False

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer that cannot spend it, before its first item.

        Raises:
            ValueError: why.
        """
        require_axis(tokenizer)

    def spend(self, tokenizer: Tokenizer, x: Tensor, latents: Latents) -> Codes:
        """The codes of signals x that fit the budget."""
        raise NotImplementedError


class _Price(Budget):
    """At most so much an item, of which every code takes some."""

    count: float
    unit: ClassVar[str]

    def __post_init__(self) -> None:
        if not isinstance(self.count, Real) or (self.count % 1 and self.unit == "tokens"):
            raise ValueError(f"a budget of {self.count!r} {self.unit} is no number of them. Give one, such as 64.")
        if not self.count > 0:
            raise ValueError(f"a budget of {self.count:g} {self.unit} keeps nothing. Give more.")

    @staticmethod
    def price(size: int, stride: int) -> float:
        """Of the codes of a place, where one of `size` stands at every `stride` of them."""
        raise NotImplementedError

    def prices(self, spec: CodeSpec) -> list[float]:
        """Of each row of ids."""
        strides = spec.stride or (1,) * len(spec.codebook_sizes)
        return [self.price(*one) for one in zip(spec.codebook_sizes, strides, strict=True)]

    def check(self, tokenizer: Tokenizer) -> None:
        prices = self.prices(tokenizer.spec)
        # A level of one place is the least there can be; how many places an item has, it alone can tell.
        least = sum(prices) if require_axis(tokenizer) == "positions" else min(prices)
        if self.count < least:
            raise self._too_little(least)

    def _too_little(self, least: float) -> ValueError:
        return ValueError(
            f"a budget of {self.count:g} {self.unit} is less than the shortest code of an item takes, which is "
            f"{least:g}. Give more."
        )

    def spend(self, tokenizer: Tokenizer, x: Tensor, latents: Latents) -> Codes:
        axis, batch = require_axis(tokenizer), latents.z.shape[0]
        # Not in the latents' type: half precision cannot count to 257, and the budget would be overrun.
        exact, device = torch.float64, latents.z.device
        prices = torch.tensor(self.prices(tokenizer.spec), dtype=exact, device=device)
        places = torch.full((batch,), latents.z.shape[1], dtype=exact, device=device)
        if latents.mask is not None:
            places = latents.mask.sum(1).to(exact)
        if axis == "positions":
            least = prices.sum()
            kept = (self.count / least).floor().expand(batch).minimum(places).long()
        else:
            costs = _costs_of_levels(tokenizer, latents, prices, places)
            least = costs[:, 0]
            kept = (costs <= self.count).sum(1)
        if bool((kept < 1).any()):
            raise self._too_little(float(least.max()))
        return tokenizer.code(latents, **{axis: kept})


@dataclass(frozen=True)
class Tokens(_Price):
    """At most so many codes an item."""

    count: int
    unit: ClassVar[str] = "tokens"

    @staticmethod
    def price(size: int, stride: int) -> float:
        return 1 / stride


@dataclass(frozen=True)
class Bits(_Price):
    """At most so many bits an item, without entropy coding."""

    count: float
    unit: ClassVar[str] = "bits"

    @staticmethod
    def price(size: int, stride: int) -> float:
        return log2(size) / stride


@dataclass(frozen=True)
class Quality(Budget):
    """The fewest steps of the axis with which an item is as good as wanted, and is with each longer code tried.

    One of `psnr` (pictures, dB), `snr` (any signal, dB), or `measure` with `at_least`. Items that do not get there with
    all of the code keep all of it; `search` tells which.
    """

    psnr: float | None = None
    snr: float | None = None
    measure: Measure | None = None
    """Of one's own: higher is better."""
    at_least: float | None = None
    """Wanted of `measure`."""
    predicted: bool = False
    """Ask the predictor beside the tokenizer instead of searching: one pass of the encoder, none of the decoder."""
    confidence: float = 0.8
    """With `predicted`, the share of items that should be as good, of those that can be."""

    def __post_init__(self) -> None:
        given = [name for name in ("psnr", "snr", "measure") if getattr(self, name) is not None]
        if len(given) != 1 or (self.measure is None) != (self.at_least is None):
            raise ValueError("A quality is one of psnr=DB, snr=DB, or measure=FUNCTION with at_least=FIGURE.")
        if not isfinite(self.target):
            raise ValueError(f"a quality of {self.target} is none. Give a number of dB, such as {given[0]}=20.")
        if self.predicted and self.measure is not None:
            raise ValueError(
                "predictors know psnr or snr, not a measure of one's own. Search for it, without predicted."
            )
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence={self.confidence} is a share of items, in [0, 1].")

    @property
    def decodes(self) -> bool:
        return not self.predicted

    def check(self, tokenizer: Tokenizer) -> None:
        super().check(tokenizer)
        if tokenizer.gives != "signals":
            raise ValueError("a quality is of signals, and this tokenizer is for texts. Use Tokens or Bits.")
        if self.psnr is not None and tokenizer.spec.modality != "image":
            raise ValueError("psnr is of pictures. Use snr=DB for other signals.")
        if self.predicted:
            require_predictor(tokenizer, self._name())

    def spend(self, tokenizer: Tokenizer, x: Tensor, latents: Latents) -> Codes:
        if self.predicted:
            self.check(tokenizer)
            predictor = require_predictor(tokenizer, self._name())
            kept = predictor.choose(latents, self.target, self.confidence)
            return tokenizer.code(latents, **{require_axis(tokenizer): kept})
        return self.search(tokenizer, x, latents).codes if len(x) else tokenizer.code(latents)

    def search(self, tokenizer: Tokenizer, x: Tensor, latents: Latents) -> Found:
        """Try codes of 1, 2, 4, ... steps and all of them, then halve between the last that failed and the next."""
        self.check(tokenizer)
        trial = _Trial(tokenizer, x, latents, self._measure(), self.target)
        ladder = ladder_of(steps_of(tokenizer))
        passed = torch.stack([trial.passes(torch.full_like(trial.most, step)) for step in ladder])
        order = torch.arange(len(ladder), device=x.device)[:, None]
        # The rung behind the last that failed, from which on all are good enough; there is none where the last fails.
        first = (~passed * (order + 1)).amax(0)
        rungs = torch.tensor([0, *ladder, ladder[-1]], device=x.device)
        high = rungs[first + 1]
        low = (rungs[first] + 1).minimum(high)
        while bool((low < high).any()):
            middle = (low + high) // 2
            fits = trial.passes(middle)
            high, low = middle.where(fits, high), low.where(fits, (middle + 1).minimum(high))
        crossed = (passed & (order < first)).any(0)
        return Found(trial.code(high), high, first < len(ladder), crossed, trial.decodes)

    def reached(self, tokenizer: Tokenizer, x: Tensor, codes: Codes) -> Tensor:
        """(B,) what signals x (B, C, ...) read from these codes, whatever was wanted."""
        x = x.to(codes.ids.device)
        return self._measure()(x.float(), tokenizer.decode(codes).float(), counting(codes.source_size, x))

    def _name(self) -> str:
        return "psnr" if self.psnr is not None else "snr"

    def _measure(self) -> Measure:
        return self.measure or (psnr if self.psnr is not None else snr)

    @property
    def target(self) -> float:
        """What is wanted."""
        target = self.at_least if self.measure else self.psnr if self.psnr is not None else self.snr
        assert target is not None
        return target


class Found(NamedTuple):
    """What a search for a quality found, item by item."""

    codes: Codes
    kept: Tensor
    """(B,) int64, steps of the axis."""
    met: Tensor
    """(B,) bool, whether the quality was reached."""
    crossed: Tensor
    """(B,) bool, whether a shorter code was good enough and a longer one was not: quality did not grow with length."""
    decodes: int
    """Passes of the decoder that it took."""


_NAMED: dict[str, Callable[..., Budget]] = {
    "tokens": lambda value: Tokens(int(value)),
    "bits": Bits,
    "psnr": lambda value, **how: Quality(psnr=value, **how),
    "snr": lambda value, **how: Quality(snr=value, **how),
}
"""What `budget_of` knows."""


def levels_alone(budget: int | str | Budget | None, how: str) -> int | None:
    """The number of levels that a budget is, for what computes signals in parts and cannot try lengths of the whole.

    Raises:
        ValueError: it is another budget; says what to do, by how it is computed.
    """
    budget = budget_of(budget)
    if isinstance(budget, Budget):
        raise ValueError(
            f"{how} take a number of levels for a budget. Give one, or compute the whole at once (--tile off, --chunk "
            "off)."
        )
    return budget


def budget_of(text: str | int | Budget | None) -> int | Budget | None:
    """A budget as people write it: "3" levels, "tokens=64", "bits=1000", "psnr=30", "snr=12"; None for none.

    "psnr=30,predicted" asks the predictor, and "psnr=30,predicted=0.9" with that confidence.

    Raises:
        ValueError: it is none of these.
    """
    if text is None or isinstance(text, Budget):
        return text
    if isinstance(text, Integral):
        return int(text)
    if not isinstance(text, str):
        raise ValueError(f"budget={text!r} is no budget. Give a number of levels, Tokens, Bits or Quality, or words.")
    text, comma, way = text.partition(",")
    name, equals, value = text.partition("=")
    try:
        number = float(value) if equals else int(text)
        how = _how(way) if comma else {}
        if equals and (name not in _NAMED or (how and name not in ("psnr", "snr"))):
            raise ValueError(name)
        if (comma and not equals) or (name == "tokens" and not float(number).is_integer()):
            raise ValueError(value)
    except ValueError as error:
        raise ValueError(
            f"budget={text}{comma}{way} is none of: a number of levels, tokens=N, bits=N, psnr=DB (pictures), snr=DB "
            "(any signal); a quality may be followed by ,predicted or ,predicted=SHARE."
        ) from error
    return _NAMED[name](number, **how) if equals else int(number)


def _how(way: str) -> dict[str, float]:
    """What follows a comma: "predicted", or "predicted=0.9"."""
    name, equals, share = way.partition("=")
    if name != "predicted" or (equals and not 0 <= float(share) <= 1):
        raise ValueError(way)
    return {"predicted": True, **({"confidence": float(share)} if equals else {})}


class _Trial:
    """Codes of one batch at any number of steps, and whether they are good enough."""

    def __init__(self, tokenizer: Tokenizer, x: Tensor, latents: Latents, measure: Measure, target: float) -> None:
        self.tokenizer, self.x, self.latents = tokenizer, x, latents
        self.measure, self.target = measure, target
        self.axis = require_axis(tokenizer)
        self.most = torch.full((len(x),), steps_of(tokenizer), device=x.device)
        self.decodes = 0

    def code(self, kept: Tensor) -> Codes:
        return self.tokenizer.code(self.latents, **{self.axis: kept})

    def passes(self, kept: Tensor) -> Tensor:
        """(B,) bool."""
        y = self.tokenizer.decode(self.code(kept))
        self.decodes += 1
        return self.measure(self.x.float(), y.float(), counting(self.latents.source_size, self.x)) >= self.target


def _costs_of_levels(tokenizer: Tokenizer, latents: Latents, prices: Tensor, places: Tensor) -> Tensor:
    """(B, depth) what codes of each number of levels cost, items having so many `places` (B,)."""
    quantizer = tokenizer.quantizer
    if latents.grid is not None and (scales := quantizer.scales(latents.grid)):
        cells = torch.tensor([height * width for height, width in scales], device=prices.device)
        return (cells.cumsum(0) * prices[0]).expand(len(places), -1)
    # (depth, L): which rows of ids a number of levels has, as the quantizer counts its levels.
    steps = torch.arange(1, quantizer.depth + 1, device=prices.device)
    rows = quantizer.encode(latents.z.new_zeros(len(steps), 1, latents.z.shape[2]), levels=steps)[..., 0] >= 0
    return (rows * prices).sum(1) * places[:, None]
