"""Fits the predictor of lengths: what each training item is worth at each length, against its pooled latents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from mmtok.tokenizers.axis import cut, ladder_of, require_axis, steps_of
from mmtok.tokenizers.base import Tokenizer, evaluating
from mmtok.tokenizers.fidelity import counting, fidelity_of
from mmtok.tokenizers.predictor import LengthPredictor, expanded, features

RIDGES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties that are tried, as shares of the number of items."""
HELD_OUT = 4
"""One item in so many is not fitted to: its error chooses the penalty, and is the margin."""
LEAST = 32
"""Items below which nothing is fitted."""


class Fitted(NamedTuple):
    """A predictor and how well it does."""

    predictor: LengthPredictor
    items: int
    explained: float
    """Share of the variance of quality, at the lengths together, that is predicted of items it was not fitted to."""


@torch.no_grad()
def fit_predictor(tokenizer: Tokenizer, batches: Iterable[Tensor]) -> Fitted:
    """Decode every item at each length of the ladder, and solve for its quality.

    Args:
        tokenizer: whose codes can be cut.
        batches: training signals x of one size each, as `encode` takes them.

    Raises:
        ValueError: codes cannot be cut, or there are too few items.
    """
    axis, ladder = require_axis(tokenizer), ladder_of(steps_of(tokenizer))
    figure, name = fidelity_of(tokenizer.spec.modality)
    seen: list[Tensor] = []
    qualities: list[Tensor] = []
    with evaluating(tokenizer):
        for x in batches:
            latents = tokenizer.embed(x)
            within = counting(latents.source_size, x)
            decoded = (tokenizer.decode(cut(tokenizer, latents, steps)) for steps in ladder)
            qualities.append(torch.stack([figure(x, y, within) for y in decoded], 1).cpu())
            seen.append(features(latents).cpu())
    count = sum(map(len, seen))
    if count < LEAST:
        raise ValueError(f"{count} items are too few to fit a predictor of lengths to. Give {LEAST} or more.")
    rows, quality = torch.cat(seen).double(), torch.cat(qualities).double()
    apart = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    offset, scale = rows[~apart].mean(0), rows[~apart].std(0).clamp(min=1e-6)
    table = expanded(rows, offset, scale)
    tried = [_ridge(table[~apart], quality[~apart], ridge) for ridge in RIDGES]
    weights = min(tried, key=lambda one: float((table[apart] @ one - quality[apart]).square().mean()))
    if not weights.isfinite().all():
        raise ValueError(
            f"the {name} of some items, or their latents, are no numbers, so nothing can be predicted. Look at a few: "
            "mmtok evaluate RUN --task lengths."
        )
    error = table[apart] @ weights - quality[apart]
    spread = (quality[apart] - quality[apart].mean(0)).square().sum()
    percentiles = error.quantile(torch.linspace(0, 1, 101, dtype=torch.float64), dim=0)
    predictor = LengthPredictor(
        name, axis, tuple(ladder), tokenizer.fingerprint(),
        weights=weights.float().contiguous(), offset=offset.float(), scale=scale.float(), errors=percentiles.float(),
    )  # fmt: skip
    return Fitted(predictor, count, float(1 - error.square().sum() / spread.clamp(min=1e-12)))


def _ridge(rows: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """(N, F) and (N, R) -> (F, R); the one in the last column has no penalty."""
    penalty = torch.full((rows.shape[1],), ridge * len(rows), dtype=rows.dtype)
    penalty[-1] = 0
    return torch.linalg.solve(rows.T @ rows + penalty.diag(), rows.T @ wanted)
