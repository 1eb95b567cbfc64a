"""Attention of each frame to those near it: a far-sighted core whose reach stays finite, and which streams.

Rotary positions: Su et al. 2021 (arXiv 2104.09864); windows in codecs: Mimi (arXiv 2410.00037), 10 s of causal ones.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.exporting import exporting
from mmtok.networks.streamed import Chain, Streamed

_BASE = 10_000.0
"""Wavelength of the slowest rotation, in frames."""


class AttentionState(NamedTuple):
    keys: Tensor
    """(B, H, window - 1, D) of the last frames, not rotated yet: only distances count, so each step starts at zero."""
    values: Tensor
    """(B, H, window - 1, D)."""
    known: Tensor
    """(B,) how many of them there are."""


class LocalAttention(Streamed):
    """Pre-norm attention of each frame to the `window` frames that end with it, and as many after it unless causal.

    Computed in blocks of a window, so that time and memory grow with the length and not with its square.
    """

    def __init__(self, channels: int, heads: int, window: int, causal: bool, scale: float | None = None) -> None:
        super().__init__()
        if channels % (2 * heads):
            raise ValueError(f"{channels} channels do not make {heads} heads of an even width. Change attention_heads.")
        self.heads, self.window, self.causal = heads, window, causal
        self.norm = nn.LayerNorm(channels)
        self.project_in = nn.Linear(channels, 3 * channels, bias=False)
        self.project_out = nn.Linear(channels, channels, bias=False)
        self.scale = _scale(channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._project(x)
        if exporting():
            # torch.export cannot follow the shapes of the blocks below: a program looks at all frames, and masks.
            return self._add(x, self._attend(q, k, v, torch.ones((), dtype=torch.bool, device=x.device), 0))
        count = x.shape[2]
        past, future = self.window - 1, 0 if self.causal else self.window - 1
        ahead = -count % self.window
        # Blocks of a window of queries, each beside all keys that one of them may look at.
        q = F.pad(q, (0, 0, 0, ahead)).unflatten(2, (-1, self.window))
        k, v = (
            F.pad(t, (0, 0, past, future + ahead)).unfold(2, past + self.window + future, self.window).mT
            for t in (k, v)
        )
        position = torch.arange(past + self.window + future, device=x.device)
        start = torch.arange(0, count + ahead, self.window, device=x.device)[:, None] - past
        there = (start + position >= 0) & (start + position < count)
        y = self._attend(q, k, v, there[:, None], past)
        return self._add(x, y.flatten(2, 3)[:, :, :count])

    def _project(self, x: Tensor) -> list[Tensor]:
        """(B, C, T) -> queries, keys and values (B, H, T, D)."""
        mixed = self.project_in(self.norm(x.transpose(1, 2)))
        return [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in mixed.chunk(3, 2)]

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, there: Tensor, first: int) -> Tensor:
        """Queries (..., n, D) over keys (..., m, D); the first query stands at key `first`. `there`: (..., 1, m)."""
        position = torch.arange(k.shape[-2], device=k.device)
        own = position[first : first + q.shape[-2]]
        distance = own[:, None] - position
        near = (distance < self.window) & (distance > (-1 if self.causal else -self.window))
        # What is padding sees itself alone, so that no row is empty, which would make it NaN.
        mask = (near & there) | (distance == 0)
        return F.scaled_dot_product_attention(_rotate(q, own), _rotate(k, position), v, attn_mask=mask)

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        y = self.project_out(y.transpose(1, 2).flatten(2))
        return x + (y if self.scale is None else y * self.scale).transpose(1, 2)

    def init_state(self, batch: int = 1) -> AttentionState:
        if not self.causal:
            raise ValueError("Centred attention has no steps: it looks ahead. Make the network causal to stream it.")
        weight = self.project_in.weight
        past = weight.new_zeros(batch, self.heads, self.window - 1, weight.shape[1] // self.heads)
        return AttentionState(past, past, torch.zeros(batch, dtype=torch.int64, device=weight.device))

    def step(self, x: Tensor, state: AttentionState, last: bool = False) -> tuple[Tensor, AttentionState]:
        if not x.shape[2]:
            return x, state
        past = self.window - 1
        q, k, v = self._project(x)
        k, v = torch.cat([state.keys, k], 2), torch.cat([state.values, v], 2)
        there = torch.arange(k.shape[2], device=x.device) >= past - state.known[:, None]
        y = self._attend(q, k, v, there[:, None, None], past)
        count = (state.known + x.shape[2]).clamp(max=past)
        kept = (k[:, :, k.shape[2] - past :].clone(), v[:, :, v.shape[2] - past :].clone())
        return self._add(x, y), AttentionState(*kept, count)

    def ready(self, count: int) -> int:
        return count if self.causal else max(count - self.window + 1, 0)

    def seen(self, low: int, high: int) -> tuple[int, int]:
        return low - self.window + 1, high if self.causal else high + self.window - 1


class FeedForward(Streamed):
    """Pre-norm, four times as wide inside, GELU."""

    def __init__(self, channels: int, bias: bool = True, scale: float | None = None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 4 * channels, bias=bias)
        self.narrow = nn.Linear(4 * channels, channels, bias=bias)
        self.scale = _scale(channels, scale)

    def forward(self, x: Tensor) -> Tensor:
        y = self.narrow(F.gelu(self.widen(self.norm(x.transpose(1, 2)))))
        return x + (y if self.scale is None else y * self.scale).transpose(1, 2)


def _scale(channels: int, start: float | None) -> nn.Parameter | None:
    """A learned factor of each channel of what is added (layer scale: Touvron et al. 2021, arXiv 2103.17239)."""
    return None if start is None else nn.Parameter(torch.full((channels,), start))


def transformer(
    channels: int,
    layers: int,
    heads: int,
    window: int,
    *,
    causal: bool,
    bias: bool = True,
    scale: float | None = None,
) -> Chain:
    """`layers` blocks of local attention and what follows it.

    Args:
        channels: of the frames.
        layers: blocks.
        heads: of each attention.
        window: frames that each sees, its own included.
        causal: whether none is after it.
        bias: of what follows attention.
        scale: what the factors of layer scale begin with; None for none.
    """
    parts: dict[str, Streamed] = {}
    for index in range(layers):
        parts[f"attention{index}"] = LocalAttention(channels, heads, window, causal, scale)
        parts[f"feed{index}"] = FeedForward(channels, bias, scale)
    return Chain(parts)


def _rotate(x: Tensor, position: Tensor) -> Tensor:
    """x (..., n, D) turned by its positions (n,), each pair of channels (i, i + D/2) at its own speed."""
    half = x.shape[-1] // 2
    speed = _BASE ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    angle = position[:, None] * speed
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
