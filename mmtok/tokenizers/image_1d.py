"""Pictures to a row of codes, as many as asked for whatever the size, the first ones usable alone.

Yu et al. 2024, TiTok (arXiv 2406.07550); nested dropout as in Rippel et al. 2014 (arXiv 1402.0915) and FlexTok
(arXiv 2502.13967): a training picture keeps only its first k codes, so that the first must say most.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil, log2
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.networks.base import EncoderConfig
from mmtok.networks.queries import QueriesConfig, QueryNetworks
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.axis import Axis
from mmtok.tokenizers.base import register_tokenizer
from mmtok.tokenizers.checks import refuse_ids
from mmtok.tokenizers.image import ImageTokenizer, ImageTokenizerConfig
from mmtok.tokenizers.latents import Latents


@dataclass(frozen=True, kw_only=True)
class Image1dTokenizerConfig(ImageTokenizerConfig):
    encoder: EncoderConfig = field(default_factory=QueriesConfig)
    """Encoder and decoder, which must be `queries`. Its `in_channels` and `dim` are filled in."""
    nested: Literal["none", "uniform", "pow2", "uniform_pow2"] = "none"
    """How many first codes a training picture keeps: all; any number; a power of two; or any number up to a power of
    two drawn first, which is FlexTok's and favours short ones."""
    full: float = 0.3
    """Share of training pictures that keep all codes; of no effect with `nested: none`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.encoder, QueriesConfig):
            raise ValueError(
                "tokenizer image_1d needs encoder.name=queries, which sums pictures up in a row of tokens."
            )
        if not 0 <= self.full <= 1:
            raise ValueError(f"full={self.full} is a share of the training pictures, in [0, 1].")
        if self.nested != "none" and self.full == 1:
            raise ValueError(
                f"nested={self.nested} with full=1 never leaves a code out. Use nested=none, or a lower full."
            )


@register_tokenizer("image_1d", Image1dTokenizerConfig)
class Image1dTokenizer(ImageTokenizer):
    """x (B, C, H, W) in [-1, 1] <-> ids (B, L, N), N in a row, of which the first `Codes.lengths` are there."""

    config: Image1dTokenizerConfig
    networks: QueryNetworks

    def __init__(self, config: Image1dTokenizerConfig, quantizer: Quantizer) -> None:
        super().__init__(config, quantizer)
        if not quantizer.pointwise:
            raise ValueError("tokenizer image_1d has no grid, which this quantizer codes as a whole. Use another one.")

    @property
    def spec(self) -> CodeSpec:
        return replace(super().spec, positions=self.networks.queries, nested=self.config.nested != "none")

    @property
    def axis(self) -> Axis | None:
        return super().axis if self.config.nested == "none" else "positions"

    @property
    def cut_in_training(self) -> bool:
        return super().cut_in_training or self.axis == "positions"

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        x, sizes = self.padded(x, lengths)
        return Latents(self.networks.encoder(x).transpose(1, 2), None, None, sizes)

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        height, width = size
        stride, missing = self.networks.downsample, self.networks.queries - values.shape[1]
        if missing:
            mask = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device) if mask is None else mask
            values, mask = F.pad(values, (0, 0, 0, missing)), F.pad(mask, (0, missing))
        patches = (-(-height // stride), -(-width // stride))
        return self.networks.decoder(values.transpose(1, 2), patches, mask)[:, :, :height, :width]

    def check_codes(self, codes: Codes) -> None:
        if codes.ids.shape[2] > self.networks.queries:
            raise ValueError(
                f"these codes have {codes.ids.shape[2]} positions, and pictures of this tokenizer at most "
                f"{self.networks.queries}. Were they made by another one?"
            )

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """Codes -> pictures; smaller ones of a batch are followed by black, to be cut by `source_size`."""
        refuse_ids(codes)
        sizes = codes.source_size
        if len(codes) < 2 or bool((sizes == sizes[0]).all()):
            return super().decode(codes)
        # A picture's size is what its tokens are painted on: those of one size at a time.
        canvas = sizes.amax(0).tolist()
        x = torch.full((len(codes), self.config.channels, *canvas), -1.0, device=codes.ids.device)
        for size in sizes.unique(dim=0):
            rows = (sizes == size).all(1)
            x[rows, :, : int(size[0]), : int(size[1])] = super().decode(codes.select(rows))
        return x

    def draw_positions(self, count: int, generator: torch.Generator) -> Tensor | None:
        most = self.networks.queries
        if self.config.nested == "none":
            return None
        whole = torch.rand(count, generator=generator) < self.config.full
        # Up to the first power that takes all: of 48 codes the last 16 would be taught by whole pictures alone.
        powers = torch.randint(0, ceil(log2(most)) + 1, (count,), generator=generator)
        ceilings = torch.full((count,), most) if self.config.nested == "uniform" else (2**powers).clamp(max=most)
        kept = ceilings
        if self.config.nested != "pow2":
            kept = 1 + (torch.rand(count, generator=generator, dtype=torch.float64) * ceilings).long()
        return kept.where(~whole, most)
