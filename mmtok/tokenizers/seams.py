"""What tiles cost: the distance of a tiled result from that of the whole picture, and how visible their borders are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.tokenizers.tiling import Tiled


class Comparison(NamedTuple):
    """Tiles against the whole picture. Both are needed, so it is for pictures that fit."""

    difference: float
    """Largest absolute difference between the two decodings of the same codes, in the units of x."""
    ids_differ: float
    """Share of ids that differ between the two encodings."""
    seam: float
    """`seam_ratio` of what was encoded and decoded in tiles."""
    seam_whole: float
    """The same of what was encoded and decoded whole, at the same places."""
    seam_source: float
    """The same of the picture itself."""


@torch.inference_mode()
def compare(tiled: Tiled, x: Tensor) -> Comparison:
    """Encode and decode pictures (B, C, H, W) in tiles and whole.

    The tokenizer is asked on its own device; x is sent there.
    """
    x = x.to(next(tiled.tokenizer.parameters()).device)
    codes, codes_tiled = tiled.tokenizer.encode(x), tiled.encode(x)
    whole, same_codes = tiled.tokenizer.decode(codes), tiled.decode(codes)
    return Comparison(
        difference=(same_codes - whole).abs().max().item(),
        ids_differ=(codes.ids != codes_tiled.ids).float().mean().item(),
        seam=seam_ratio(tiled.decode(codes_tiled), tiled),
        seam_whole=seam_ratio(whole, tiled),
        seam_source=seam_ratio(x, tiled),
    )


def seam_ratio(x: Tensor, tiled: Tiled) -> float:
    """Mean absolute step between neighbouring pixels across the borders of tiles, over that across other borders of
    positions; 1 is invisible, NaN where there is no border.

    Other borders of positions, because a decoder may step there by itself; compare with the ratio of the source, whose
    content may happen to step where tiles meet.
    """
    across, elsewhere = [], []
    for axis, borders in zip((2, 3), tiled.borders(x.shape[2], x.shape[3]), strict=True):
        steps = x.diff(dim=axis).abs().mean([dim for dim in range(4) if dim != axis])
        # Step i is between i and i + 1, so that a border at n is step n - 1.
        between = torch.zeros(steps.shape[0], dtype=torch.bool, device=x.device)
        between[tiled.stride - 1 :: tiled.stride] = True
        tiles = torch.zeros_like(between)
        tiles[[border - 1 for border in borders]] = True
        across.append(steps[tiles])
        elsewhere.append(steps[between & ~tiles])
    return (torch.cat(across).mean() / torch.cat(elsewhere).mean()).item()
