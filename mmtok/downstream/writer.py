"""Writes the id of an item level by level, after what was read: the generative half of TIGER and DSI.

Rajput et al. 2023, "Recommender Systems with Generative Retrieval" (arXiv 2305.05065); Tay et al. 2022, "Transformer
Memory as a Differentiable Search Index" (arXiv 2202.06991). Both train a T5; this is a small decoder of the same plan.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.downstream.layers import ModelConfig, ReadingLayer


class Codes(nn.Module):
    """Embeddings of ids by level. Id 3 of level 0 and id 3 of level 1 have nothing in common but the number."""

    offsets: Tensor

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(sizes), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        starts = [sum(sizes[:level]) for level in range(len(sizes))]
        self.register_buffer("offsets", torch.tensor(starts), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """(..., l) ids of the first l levels -> (..., l, W)."""
        return self.table(ids + self.offsets[: ids.shape[-1]])


class Writer(nn.Module):
    """Ids of L levels, each after those before it, a context vector and a memory."""

    def __init__(self, sizes: tuple[int, ...], config: ModelConfig) -> None:
        super().__init__()
        self.sizes = sizes
        self.codes = Codes(sizes, config.width)
        self.depths = nn.Parameter(torch.randn(len(sizes), config.width) * 0.02)
        self.layers = nn.ModuleList(ReadingLayer(config) for _ in range((config.depth + 1) // 2))
        self.norm = nn.LayerNorm(config.width)
        self.heads = nn.ModuleList(nn.Linear(config.width, size) for size in sizes)

    def forward(self, prefix: Tensor, context: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """States from which each level up to the next is read.

        Args:
            prefix: (B, T, l) ids of the first l levels, of T items each, which do not see each other.
            context: (B, T or 1, W), the state an item follows.
            memory: (B, M, W), all that was read.
            seen: (B, T, M) bool, what of it an item may see.

        Returns:
            (B, T, min(l + 1, L), W).
        """
        batch, texts, length = prefix.shape
        places = min(length + 1, len(self.sizes))
        before = self.codes(prefix[..., : places - 1])
        x = torch.cat([before.new_zeros(batch, texts, 1, before.shape[-1]), before], 2)
        x = x + self.depths[:places] + context[:, :, None]
        mask = torch.ones(1, places, places, dtype=torch.bool, device=x.device).tril()
        for layer in self.layers:
            x = layer(x, mask, memory, seen)
        return self.norm(x)

    def nats(self, ids: Tensor, context: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """-log p of items: (B, T, L) ids, negative where there is no item -> (B, T), 0 there."""
        there = ids[..., 0] >= 0
        states = self(ids.clamp(min=0), context, memory, seen)[there]
        wanted = ids[there]
        levels = [
            F.cross_entropy(head(states[:, level]), wanted[:, level], reduction="none")
            for level, head in enumerate(self.heads)
        ]
        return torch.zeros(there.shape, device=ids.device).masked_scatter(there, torch.stack(levels).sum(0))

    def following(self, prefix: Tensor, context: Tensor, memory: Tensor, seen: Tensor) -> Tensor:
        """(B, T, l) -> (B, T, sizes[l]) log-probabilities of the next level's ids."""
        states = self(prefix, context, memory, seen)[:, :, -1]
        return self.heads[prefix.shape[-1]](states).log_softmax(-1)
