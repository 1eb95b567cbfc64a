"""Pictures of any size to a grid of codes, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmtok.codes import Codes, CodeSpec
from mmtok.networks.base import EncoderConfig, networks
from mmtok.networks.conv2d import Conv2dConfig
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers import pixels
from mmtok.tokenizers.base import Tokenizer, TokenizerConfig, register_tokenizer
from mmtok.tokenizers.latents import Latents


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig(TokenizerConfig):
    image_size: int = 256
    """Side of the pictures it is trained on, and of `preprocess(..., fit=True)`. Any size can be encoded."""
    channels: int = 3
    """3 for colour, 1 for grey."""
    encoder: EncoderConfig = field(default_factory=Conv2dConfig)
    """Encoder and decoder. Its `in_channels` and `dim` are filled in."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 3 (colour) or 1 (grey), got {self.channels}.")
        if self.image_size < 1:
            raise ValueError(f"image_size must be positive, got {self.image_size}.")
        object.__setattr__(self, "encoder", self.encoder.filled(self.channels, self.dim))


@register_tokenizer("image", ImageTokenizerConfig)
class ImageTokenizer(Tokenizer):
    """x (B, C, H, W) in [-1, 1] <-> ids (B, L, T) on a grid of ceil(H / f) x ceil(W / f).

    Pictures are extended to the stride by repeating their last row and column, which works for any size; `decode` cuts
    that off. Compile `networks.encoder` and `networks.decoder` in place (`.compile()`): names in the state stay.
    """

    config: ImageTokenizerConfig
    suffix = ".png"

    def __init__(self, config: ImageTokenizerConfig, quantizer: Quantizer) -> None:
        super().__init__()
        self.config = config
        self.networks = networks.build(config.encoder)
        self.quantizer = quantizer

    @property
    def spec(self) -> CodeSpec:
        return CodeSpec(
            modality="image",
            codebook_sizes=tuple(self.quantizer.codebook_sizes),
            downsample=self.networks.downsample,
            channels=self.config.channels,
        )

    def preprocess(
        self,
        source: Any,
        *,
        resize: int | tuple[int, int] | None = None,
        crop: int | tuple[int, int] | None = None,
        fit: bool = False,
        interpolation: pixels.Interpolation = "bicubic",
        value_range: tuple[float, float] = (-1.0, 1.0),
    ) -> Tensor:
        """A path, bytes, PIL picture or array -> x (1, C, H, W) in [-1, 1].

        Args:
            source: see `mmtok.tokenizers.pixels.read_pixels`.
            resize: shorter side, or (height, width), to scale to first. By default the picture keeps its size.
            crop: side, or (height, width), of the middle to keep.
            fit: resize and crop to `image_size`, as in evaluation.
            interpolation: of the resizing; always antialiased.
            value_range: what the ends of a float array mean.

        Raises:
            ValueError: not a picture, outside its range, or smaller than the crop.
        """
        if fit:
            resize, crop = resize or self.config.image_size, crop or self.config.image_size
        return pixels.to_unit(pixels.prepare(source, self.config.channels, resize, crop, interpolation, value_range))

    def check(self, x: Tensor) -> None:
        pixels.check_pixels(x, self.config.channels)

    def check_codes(self, codes: Codes) -> None:
        if codes.grid is None:
            raise ValueError("Codes of pictures need their grid (H, W) to be decoded, got None.")
        (height, width), count = codes.grid, codes.ids.shape[2]
        if codes.scales is None and height * width != count:
            raise ValueError(f"a grid of {height} x {width} has {height * width} positions, and these codes {count}.")

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        x, sizes = self.padded(x, lengths)
        latents = self.networks.encoder(x)
        grid = (latents.shape[2], latents.shape[3])
        return Latents(latents.flatten(2).transpose(1, 2), None, grid, sizes)

    def padded(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pictures extended to the stride, and their sizes (B, 2) before that."""
        pixels.check_layout(x, self.config.channels)
        if lengths is not None:
            raise ValueError("Pictures have no lengths: a batch has one size. Encode other sizes by themselves.")
        height, width = x.shape[2:]
        stride = self.networks.downsample
        down, right = -height % stride, -width % stride
        # Filled on the device: a tensor made from a list would be copied there, and waited for, in every step.
        sizes = torch.stack([torch.full((x.shape[0],), side, device=x.device) for side in (height, width)], 1)
        return F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x, sizes

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        assert grid is not None
        # Contiguous, so that the weights choose the memory format: channels-last GroupNorm is slow on a CPU.
        x = self.networks.decoder(values.transpose(1, 2).unflatten(2, grid).contiguous())
        return x[:, :, : size[0], : size[1]]

    def write(self, x: Tensor, path: Path) -> None:
        pixels.to_pil(x)[0].save(path)

    @staticmethod
    def to_uint8(x: Tensor) -> Tensor:
        """x in [-1, 1] -> uint8, clamped and rounded."""
        return pixels.to_uint8(x)

    @staticmethod
    def to_pil(x: Tensor, sizes: Tensor | None = None) -> list[Any]:
        """x (B, C, H, W) -> PIL pictures, each cut to its own (height, width) of `sizes` (`codes.source_size`)."""
        pictures = pixels.to_pil(x)
        if sizes is None:
            return pictures
        return [
            picture.crop((0, 0, width, height))
            for picture, (height, width) in zip(pictures, sizes.tolist(), strict=True)
        ]
