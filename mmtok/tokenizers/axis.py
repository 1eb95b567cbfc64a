"""Along what the codes of a tokenizer can be cut, its end first, and how far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from mmtok.codes import Codes
    from mmtok.tokenizers.base import Latents, Tokenizer

Axis = Literal["levels", "positions"]
"""Levels of a residual quantizer, or positions of a row of tokens that was trained with nested dropout."""


def require_axis(tokenizer: Tokenizer) -> Axis:
    """What a tokenizer can leave out.

    Raises:
        ValueError: nothing.
    """
    if tokenizer.axis is None:
        raise ValueError(
            "this tokenizer's codes have one length. Budgets need a residual quantizer (rq with dropout), or a 1-D "
            "tokenizer trained with tokenizer.nested. (A quantizer whose vocabulary nests is cut when it is loaded or "
            "exported: digits=N.)"
        )
    return tokenizer.axis


def steps_of(tokenizer: Tokenizer) -> int:
    """Steps of the axis that a whole code has.

    Raises:
        ValueError: there is no axis.
    """
    if require_axis(tokenizer) == "levels":
        return tokenizer.quantizer.depth
    assert tokenizer.spec.positions is not None, "positions that are cut are as many for every item"
    return tokenizer.spec.positions


def cut(tokenizer: Tokenizer, latents: Latents, steps: int) -> Codes:
    """Codes of as many steps of the axis for every item.

    Raises:
        ValueError: there is no axis.
    """
    return tokenizer.code(
        latents, **{require_axis(tokenizer): torch.full((len(latents.z),), steps, device=latents.z.device)}
    )


def ladder_of(most: int) -> list[int]:
    """1, 2, 4, ... below `most` steps, and all of them."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def few_lengths(most: int) -> tuple[int, ...]:
    """What tells the worth of lengths at a glance: 1, an eighth, a quarter, half and all of `most` steps."""
    return tuple(sorted({1, *(most // part for part in (8, 4, 2, 1) if most >= part)}))
