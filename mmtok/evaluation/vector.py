"""Measures a tokenizer of vectors on a corpus: names, hierarchy, neighbours, errors; beside the same codes shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmtok.evaluation.finite import require_finite
from mmtok.evaluation.report import CodeCounts, EvaluationReport, machine
from mmtok.evaluation.vector_metrics import (
    NEIGHBOURS,
    PAIRS,
    QUERIES,
    adjusted_rand,
    coherence,
    collisions,
    equal_rows,
    joint_usage,
    neighbours,
    overlap,
    queries_of,
)
from mmtok.grouping import Ids
from mmtok.quantizers.usage import UsageWindow
from mmtok.tokenizers.base import evaluating
from mmtok.tokenizers.vector import VectorTokenizer

DEFINITIONS = {
    "collision_rate": "1 - distinct codes / items (LC-Rec), before any level of kind disambiguation",
    "duplicates": "1 - distinct vectors / items: collisions that no tokenizer can part",
    "collisions_beyond_duplicates": "1 - distinct codes / distinct vectors",
    "needs_extra": "share of items whose codes another item has too",
    "max_group": "items of the codes that most items have",
    "slots_per_item": "product of the codebook sizes over items",
    "joint_active": "distinct codes over the fewer of items and slots",
    "mse": "mean squared error in standardised channels: 1 is what the mean vector leaves",
    "residual_ratio": "norm of the latents after a residual level over the norm before the first, by level",
    "coherence": "mean cosine, about the mean vector, of pairs that share their first l codes; equal vectors are one",
    "purity": "share of such pairs with the same label",
    "knn_recall": f"share of the {NEIGHBOURS} nearest items, by vectors, that are nearest by decoded codes too",
    "stability": f"share of the {NEIGHBOURS} nearest items by decoded codes that another tokenizer's codes give too",
    "first_level_rand": "adjusted Rand index of the first level's clusters with another tokenizer's",
}


class Coded(NamedTuple):
    """Items and what a tokenizer makes of them: twice N x F numbers."""

    same: Ids
    """(N,) the number of each among the distinct vectors."""
    ids: Ids
    """(N, L)."""
    compared: Tensor
    """(N, F) standardised."""
    decoded: Tensor
    """(N, F) of the codes, standardised."""
    labels: NDArray[np.int64]
    """(N,), -1 for none."""


@torch.inference_mode()
def evaluate_vectors(
    tokenizer: VectorTokenizer,
    loader: Iterable[Mapping[str, Any]],
    *,
    against: VectorTokenizer | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    notes: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    """Code every item of a loader, and look at all of them together.

    Args:
        tokenizer: moved to the device.
        loader: batches with "x" (B, F), and "label" (B,) where there are some.
        against: of the same recipe and another seed: how much of the codes is the seed's.
        device: where to code.
        seed: of the pairs and queries that are drawn, and of the shuffling.
        notes: what the caller knows and a reader needs.

    Raises:
        ValueError: the loader gave fewer than two items.
    """
    batches = [(batch["x"], batch.get("label")) for batch in loader]
    if sum(len(x) for x, _ in batches) < 2:
        raise ValueError("There is nothing to evaluate: the loader gave fewer than 2 vectors. Check the shards.")
    items, window = code(tokenizer, batches, device)
    figures = measures(items, tokenizer.spec.codebook_sizes, seed)
    counts = CodeCounts(tokenizer.spec.codebook_sizes)
    counts.update(torch.from_numpy(items.ids)[..., None])
    figures |= {
        f"residual_ratio_{number}": level.energy.residual_ratio
        for number, level in enumerate(window.read().values())
        if level.energy is not None
    }
    if against is not None:
        figures |= stability(items, code(against, batches, device)[0], seed)
    order = np.random.default_rng(seed).permutation(len(items.ids))
    shuffled = items._replace(ids=items.ids[order], decoded=items.decoded[torch.from_numpy(order)])
    choices = {
        "definitions": DEFINITIONS,
        "coherence": coherence(items.compared, items.ids, items.labels, same=items.same, seed=seed),
        "shuffled": {
            "metrics": {"knn_recall": recall(shuffled, seed), "mse": error(shuffled)},
            "coherence": coherence(items.compared, shuffled.ids, items.labels, same=items.same, seed=seed),
        },
        "random": random_codes(items, tokenizer.spec.codebook_sizes, seed),
        "drawn": {"pairs": PAIRS, "queries": min(QUERIES, len(items.ids)), "seed": seed},
    }
    return EvaluationReport(
        len(items.ids), figures, counts.usage(), choices | machine(torch.device(device)) | dict(notes or {}),
        tuple(counts.levels), by_levels=tuple(by_levels(tokenizer, items)),
    )  # fmt: skip


def code(
    tokenizer: VectorTokenizer, batches: Iterable[tuple[Tensor, Tensor | None]], device: torch.device | str
) -> tuple[Coded, UsageWindow]:
    """Every batch coded and decoded; what is kept lies on the CPU."""
    tokenizer.to(device)
    window = UsageWindow()
    parts: list[tuple[Tensor, ...]] = []
    with evaluating(tokenizer):
        for x, label in batches:
            out = tokenizer(x.to(device))
            require_finite(out.x)
            window.add(out.quantized.stats)
            label = torch.full((len(x),), -1) if label is None else label
            kept = (out.quantized.ids[..., 0], tokenizer.compared(x.to(device)), tokenizer.compared(out.x), label)
            parts.append(tuple(one.cpu() for one in kept))
    ids, compared, decoded, labels = (torch.cat(column) for column in zip(*parts, strict=True))
    return Coded(equal_rows(compared), ids.numpy(), compared, decoded, labels.numpy()), window


def measures(items: Coded, sizes: tuple[int, ...], seed: int = 0) -> dict[str, float]:
    """Figures of coded items."""
    found = collisions(items.ids, sizes, items.same)
    joint = joint_usage(items.ids, sizes)
    return {
        "collision_rate": found.rate,
        "duplicates": found.duplicates,
        "collisions_beyond_duplicates": found.beyond,
        "needs_extra": found.shared,
        "max_group": float(found.largest),
        "slots_per_item": found.slots,
        "joint_active": joint.active,
        "joint_perplexity_norm": joint.perplexity_norm,
        "mse": error(items),
        "knn_recall": recall(items, seed),
    }


def error(items: Coded) -> float:
    """Mean squared error of the decoded codes."""
    return float((items.decoded.double() - items.compared.double()).square().mean())


def recall(items: Coded, seed: int) -> float:
    """Neighbours by vectors that are neighbours by codes too; NaN where items are too few, or all alike."""
    if len(items.ids) <= NEIGHBOURS + 1 or not items.same.max():
        return float("nan")
    queries = queries_of(len(items.ids), seed)
    return overlap(neighbours(items.compared, queries), neighbours(items.decoded, queries))


def stability(items: Coded, other: Coded, seed: int) -> dict[str, float]:
    """How much two tokenizers' codes of the same items agree."""
    queries = queries_of(len(items.ids), seed)
    return {
        "stability": overlap(neighbours(items.decoded, queries), neighbours(other.decoded, queries)),
        "first_level_rand": adjusted_rand(items.ids[:, 0], other.ids[:, 0]),
    }


def by_levels(tokenizer: VectorTokenizer, items: Coded) -> list[dict[str, Any]]:
    """The error with the first levels only, where levels can be left out."""
    depth = tokenizer.quantizer.depth
    each = len(tokenizer.spec.codebook_sizes) // depth
    device = tokenizer.standard.mean.device
    rows = []
    for levels in range(1, depth + 1 if depth > 1 else 1):
        total = 0.0
        ids = torch.from_numpy(items.ids[:, : levels * each])[..., None]
        for part, want in zip(ids.split(4096), items.compared.split(4096), strict=True):
            values = tokenizer.quantizer.decode(part.to(device))
            y = tokenizer.compared(tokenizer.synthesise(values, None, ())).cpu()
            total += float((y.double() - want.double()).square().sum())
        found = collisions(items.ids[:, : levels * each], tokenizer.spec.codebook_sizes[: levels * each], items.same)
        figures = {"mse": total / items.compared.numel(), "collisions_beyond_duplicates": found.beyond}
        rows.append({"levels": levels} | figures)
    return rows


def random_codes(items: Coded, sizes: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    """The same figures of codes drawn at random, one for each distinct vector, which decode to nothing but the mean."""
    rng, same = np.random.default_rng(seed), items.same
    ids = np.stack([rng.integers(0, size, int(same.max()) + 1) for size in sizes], 1)[same]
    drawn = items._replace(ids=ids, decoded=torch.zeros_like(items.decoded))
    figures = measures(drawn, sizes, seed) | {"knn_recall": NEIGHBOURS / max(len(ids) - 1, NEIGHBOURS)}
    return figures | {"active": [len(np.unique(column)) / size for column, size in zip(ids.T, sizes, strict=True)]}


__all__ = [
    "DEFINITIONS", "Coded", "by_levels", "code", "coherence", "evaluate_vectors", "measures", "random_codes",
]  # fmt: skip
