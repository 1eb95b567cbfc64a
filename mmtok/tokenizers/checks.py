"""What `encode` and `decode` of every tokenizer refuse."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def check_lengths(x: Tensor, lengths: Tensor) -> None:
    """Refuse lengths that are not of the items of x (B, C, S).

    Raises:
        ValueError: names them.
    """
    if (
        lengths.shape != x.shape[:1]
        or lengths.is_floating_point()
        or not ((lengths >= 0) & (lengths <= x.shape[2])).all()
    ):
        raise ValueError(
            f"lengths are one number of samples an item, 0 to {x.shape[2]} here; got {lengths.tolist()} for "
            f"{x.shape[0]} items."
        )


def refuse_ids(codes: Any) -> None:
    """Refuse bare ids where codes are wanted, and codes of nothing.

    Raises:
        ValueError: says what is missing.
    """
    if isinstance(codes, Tensor):
        raise ValueError(
            "decode takes Codes, and these are bare ids. Give Codes(ids, lengths, source_size, grid): lengths (B,) in "
            "positions, source_size (B, n) in pixels or samples, grid (H, W) of pictures."
        )
    if not len(codes):
        raise ValueError("decode got a batch of 0 items, and nothing says how large signals of none are. Leave it out.")
