"""Beam search over residual levels: the sum of codes that is nearest, and not the code that is nearest at each level.

As decoders of additive codes do it (Babenko and Lempitsky 2014, "Additive Quantization"; Xu et al. 2024, QINCo2, arXiv
2501.03078, for residual levels). A worse first code can leave what later levels code better; with `width` paths the
search sees that, at the price of that many searches a level.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmtok.exporting import exporting
from mmtok.quantizers.lookup import Lookup

_ENTRIES = 1 << 22
"""Numbers in the candidates that are held at a time: 16 MB."""


@torch.no_grad()
def search(x: Tensor, levels: Sequence[Lookup], scales: Sequence[float], kept: Tensor | None, width: int) -> Tensor:
    """Rows (N, D) -> ids (N, L) of the best path found.

    Args:
        x: what is to be coded.
        levels: one quantizer a level.
        scales: what each level's codes are multiplied by.
        kept: (N, L) bool, the levels a row has, the first ones; None means all. A path is the best at its own depth.
        width: paths kept.
    """
    if exporting():  # a program has no number of rows yet, and so no number of chunks
        return _paths(x, levels, scales, kept, width)
    size = max(1, _ENTRIES // (width * width * x.shape[1]))
    parts = [] if kept is None else kept.split(size)
    found = [
        _paths(rows, levels, scales, parts[number] if parts else None, width)
        for number, rows in enumerate(x.split(size))
    ]
    return torch.cat(found)


def _paths(x: Tensor, levels: Sequence[Lookup], scales: Sequence[float], kept: Tensor | None, width: int) -> Tensor:
    left, paths = x[:, None], x.new_zeros((x.shape[0], 1, 0), dtype=torch.int64)
    for number, (level, scale) in enumerate(zip(levels, scales, strict=True)):
        ids, values = level.candidates((left / scale).flatten(0, 1), width)
        count, few = left.shape[1], ids.shape[1]
        options = (left.flatten(0, 1)[:, None] - values * scale).view(x.shape[0], count * few, x.shape[1])
        best = options.square().sum(-1)
        best = best.topk(min(width, best.shape[1]), dim=1, largest=False, sorted=True).indices
        if kept is not None:
            # A row without this level goes on with the paths it has, in their order; its ids here are not used.
            stays = torch.arange(best.shape[1], device=x.device).clamp(max=count - 1) * few
            best = best.where(kept[:, number, None], stays)
            options = options.where(kept[:, number, None, None], left.repeat_interleave(few, 1))
        origin = best // few
        taken = ids.view(x.shape[0], count * few).gather(1, best)
        paths = torch.cat([paths.gather(1, origin[..., None].expand(-1, -1, number)), taken[..., None]], 2)
        left = options.gather(1, best[..., None].expand(-1, -1, x.shape[1]))
    return paths[:, 0]
