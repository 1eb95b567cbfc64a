"""A transformer that sums a picture up in a row of tokens, as many as asked for: 1-D tokenization.

Yu et al. 2024, TiTok (arXiv 2406.07550): learned queries stand beside the patches and carry what the decoder gets. Here
in one stage, on pixels; TiTok's published models first learn the codes of another tokenizer. Bachmann et al. 2025,
FlexTok (arXiv 2502.13967): where training leaves out the last tokens, a learned one stands for each, and any number of
first ones can be decoded.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmtok.networks.base import Networks, register_network
from mmtok.networks.blocks_vit import (
    SPAN,
    Blocks,
    Patches,
    Pixels,
    TransformerConfig,
    grid_positions,
    initialise,
    sines,
)


@dataclass(frozen=True)
class QueriesConfig(TransformerConfig):
    queries: int = 64
    """Tokens of a picture, whatever its size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1:
            raise ValueError(f"queries must be at least 1 token, got {self.queries}.")


def spread_places(count: int, width: int) -> nn.Parameter:
    """(count, width) where tokens start: spread over the picture, so that those of any first few lie apart.

    Roberts 2018's R2 sequence, the golden ratio of the plane. Training moves them; without a place to start from, all
    tokens say the same for long.
    """
    golden = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    places = (0.5 + torch.arange(count, dtype=torch.float64)[:, None] * golden) % 1
    return nn.Parameter(sines(places * SPAN, width))


class QueryEncoder(nn.Module):
    """Pictures (B, C, H, W) -> latents (B, dim, N), in an order that only training gives a meaning."""

    def __init__(self, config: QueriesConfig) -> None:
        super().__init__()
        self.patches = Patches(config, SPAN)
        self.queries = spread_places(config.queries, config.width)
        self.blocks = Blocks(config, config.layers)
        self.latents = nn.Linear(config.width, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        patches, _ = self.patches(x)
        tokens = torch.cat([patches, self.queries.to(patches.dtype).expand(len(patches), -1, -1)], 1)
        return self.latents(self.blocks(tokens)[:, patches.shape[1] :]).transpose(1, 2)


class QueryDecoder(nn.Module):
    """Latents (B, dim, N) and the grid of patches to paint -> pictures (B, C, h * patch, w * patch)."""

    def __init__(self, config: QueriesConfig) -> None:
        super().__init__()
        self.values = nn.Linear(config.dim, config.width)
        self.places = spread_places(config.queries, config.width)
        self.absent = nn.Parameter(0.02 * torch.randn(config.width))
        self.canvas = nn.Parameter(0.02 * torch.randn(config.width))
        self.blocks = Blocks(config, config.decoder_layers or config.layers)
        self.pixels = Pixels(config)

    def forward(self, latents: Tensor, grid: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """`mask` (B, N) is True where there is a token; None where all are."""
        tokens = self.values(latents.transpose(1, 2))
        if mask is not None:
            tokens = tokens.where(mask[..., None], self.absent.to(tokens.dtype))
        tokens = tokens + self.places.to(tokens.dtype)[: tokens.shape[1]]
        canvas = self.canvas.to(tokens.dtype) + grid_positions(grid, tokens.shape[2], tokens, SPAN)
        painted = self.blocks(torch.cat([canvas.expand(len(tokens), -1, -1), tokens], 1))[:, : len(canvas)]
        return self.pixels(painted, grid)


@register_network("queries", QueriesConfig)
class QueryNetworks(Networks):
    """Encoder and decoder of the tokenizer `image_1d`.

    Attributes:
        queries: tokens of a picture.
    """

    def __init__(self, config: QueriesConfig) -> None:
        super().__init__()
        config.require_dims()
        self.encoder, self.decoder = QueryEncoder(config), QueryDecoder(config)
        self.downsample, self.queries = config.patch, config.queries
        initialise(self)

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.pixels.last_layer  # type: ignore[union-attr, return-value]
