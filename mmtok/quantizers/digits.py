"""Nested codebooks: codes made of digits, whose leading digits are a code of a smaller codebook.

Nested dropout (Rippel et al. 2014, arXiv 1402.0915) over the digits of a code: in training some items keep their
leading digits alone and the others read as zero, so that these must say most. One training gives a family of
vocabularies.
"""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from mmtok.quantizers.base import Quantizer, quantizers


def check_dropout(name: str, dropout: float) -> None:
    """Refuse what is no share.

    Raises:
        ValueError: names the field.
    """
    if not 0 <= dropout <= 1:
        raise ValueError(f"{name}.dropout is a share of the items, in [0, 1], got {dropout}")


def check_digits(digits: int, most: int) -> None:
    """Refuse a number of leading digits that codes do not have.

    Raises:
        ValueError: it is none of 1 to `most`.
    """
    if not isinstance(digits, Integral) or isinstance(digits, bool) or not 1 <= digits <= most:
        raise ValueError(f"digits={digits!r}, but codes of this quantizer have 1 to {most} digits.")


def draw(count: int, digits: int, dropout: float, generator: torch.Generator) -> Tensor | None:
    """Leading digits to keep (count,) of as many items, 1 to all; None where no item drops any."""
    if not dropout:
        return None
    drops = torch.rand(count, generator=generator) < dropout
    return torch.randint(1, digits + 1, (count,), generator=generator).where(drops, digits)


def leading(kept: Tensor, digits: int) -> Tensor:
    """(B,) -> (B, 1, digits) bool, True at the first `kept` of each item."""
    return (torch.arange(digits, device=kept.device) < kept[:, None])[:, None]


def whole(kept: Tensor | None, digits: int, mask: Tensor | None) -> Tensor | None:
    """(B, 1) or (B, T) True where a code has all its digits, which is what counts as used; None where all have.

    An item cut short has codes of another vocabulary.
    """
    if kept is None:
        return mask
    full = (kept == digits)[:, None]
    return full if mask is None else full & mask


def refuse_inner(inner: Quantizer) -> None:
    """Refuse digits that would be dropped inside of another quantizer, which passes no draw on.

    Raises:
        ValueError: names the field.
    """
    if inner.digits > 1 and getattr(inner.config, "dropout", False):
        name = quantizers.name_of(inner.config)
        raise ValueError(
            f"{name}.dropout has no effect inside another quantizer. Use {name} by itself, or leave it out."
        )
