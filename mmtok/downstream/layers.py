"""A small transformer, the same under every model that is compared here: only what goes in and comes out differs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the models, alike for all."""

    width: int = 64
    """Channels."""
    depth: int = 2
    """Layers that read; half as many, rounded up, write."""
    heads: int = 4
    """Attention heads."""
    dropout: float = 0.2
    """Of embeddings and of what each layer adds."""

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % self.heads:
            raise ValueError(f"width={self.width}, depth={self.depth}, heads={self.heads}: heads must divide width.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1.")


class Attention(nn.Module):
    """Scaled dot products of queries x (B, S, W) with memory (B, M, W)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query = nn.Linear(config.width, config.width)
        self.pair = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Mask (B or 1, S, M), True where a query may look; each must have a place to look at."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.pair(memory).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
        return self.out(found.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention to itself and two linear maps; norms come first."""

    def __init__(self, config: ModelConfig, *, norms: int = 2) -> None:
        super().__init__()
        width = config.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(norms))
        self.own = Attention(config)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, S, W), mask (B or 1, S, S)."""
        normed = self.norms[0](x)
        x = x + self.dropout(self.own(normed, normed, mask))
        return x + self.dropout(self.wide(self.norms[-1](x)))


class ReadingLayer(Layer):
    """The same with a look at a memory between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, norms=3)
        self.other = Attention(config)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, seen: Tensor) -> Tensor:  # type: ignore[override]
        """One step of many texts at once.

        Args:
            x: (B, T, S, W), S places of each of T texts that share the memory and do not see each other.
            mask: (1, S, S).
            memory: (B, M, W).
            seen: (B, T, M), what of it each text sees.
        """
        batch, texts, places, _ = x.shape
        normed = self.norms[0](x).flatten(0, 1)
        x = x + self.dropout(self.own(normed, normed, mask)).view(x.shape)
        rows = self.norms[1](x).flatten(1, 2)
        found = self.other(rows, memory, seen.repeat_interleave(places, 1))
        x = x + self.dropout(found.view(batch, texts, places, -1))
        return x + self.dropout(self.wide(self.norms[-1](x)))


class Reader(nn.Module):
    """Vectors in order -> states, each of what stands at or before it (causal) or of all."""

    def __init__(self, config: ModelConfig, length: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.places = nn.Parameter(torch.randn(length, config.width) * 0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, S, W), valid (B, S) bool whose first place is always True -> (B, S, W)."""
        places = x.shape[1]
        mask = valid[:, None, :].expand(-1, places, -1)
        if self.causal:
            mask = mask & torch.ones(places, places, dtype=torch.bool, device=x.device).tril()
        x = self.dropout(x + self.places[:places])
        for layer in self.layers:
            x = layer(x, mask)
        return self.norm(x)
