"""A transformer on a grid of patches: every latent sees the whole picture. The network of ViT-VQGAN and UniTok's kind.

Yu et al. 2022, ViT-VQGAN (arXiv 2110.04627). Beside convolutions it trains slower from nothing and has no finite reach,
so big pictures in tiles are approximate; on a GPU it is the faster of the two at equal parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mmtok.networks.base import Networks, Reach, register_network
from mmtok.networks.blocks_vit import Blocks, Patches, Pixels, TransformerConfig, grid_positions, initialise


@dataclass(frozen=True)
class ViTConfig(TransformerConfig):
    """Nothing beyond the blocks' own fields."""


class ViTEncoder(nn.Module):
    """Pictures (B, C, H, W) -> latents (B, dim, H / patch, W / patch)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patches = Patches(config)
        self.blocks = Blocks(config, config.layers)
        self.latents = nn.Linear(config.width, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        tokens, grid = self.patches(x)
        return self.latents(self.blocks(tokens)).transpose(1, 2).unflatten(2, grid)


class ViTDecoder(nn.Module):
    """Latents (B, dim, h, w) -> pictures (B, C, h * patch, w * patch)."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.values = nn.Linear(config.dim, config.width)
        self.blocks = Blocks(config, config.decoder_layers or config.layers)
        self.pixels = Pixels(config)

    def forward(self, latents: Tensor) -> Tensor:
        grid = (latents.shape[2], latents.shape[3])
        tokens = self.values(latents.flatten(2).transpose(1, 2))
        tokens = tokens + grid_positions(grid, tokens.shape[2], tokens)
        return self.pixels(self.blocks(tokens), grid)


@register_network("vit", ViTConfig)
class ViTNetworks(Networks):
    """Encoder and decoder; a position is a patch."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        config.require_dims()
        self.encoder, self.decoder = ViTEncoder(config), ViTDecoder(config)
        self.downsample = config.patch
        initialise(self)

    @property
    def last_layer(self) -> Tensor:
        return self.decoder.pixels.last_layer  # type: ignore[union-attr, return-value]

    @property
    def reach(self) -> Reach | None:
        return Reach((0, 0), (0, 0), ("attention",))
