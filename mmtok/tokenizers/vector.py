"""Embedding vectors to the codes that name them, and back: one position of L levels, as semantic ids have it.

Rajput et al. 2023, TIGER (arXiv 2305.05065). Vectors are standardised first, channel by channel: of unit-norm sentence
vectors as they come, every optimiser finds the mean vector and one code (downstream.md 4).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtok.codes import CodeSpec
from mmtok.networks.base import EncoderConfig, networks
from mmtok.networks.mlp import MLPConfig
from mmtok.networks.rotation import Rotation, RotationConfig
from mmtok.quantizers.base import Quantizer
from mmtok.tokenizers.arrays import read_array
from mmtok.tokenizers.base import Tokenizer, TokenizerConfig, register_tokenizer
from mmtok.tokenizers.fitted import FittedConfig, FittedTokenizer
from mmtok.tokenizers.latents import Latents
from mmtok.tokenizers.standard import Standard

_OPQ_ROUNDS, _OPQ_ROWS = 4, 16384
"""Turns of codes and rotation, and vectors that it is fitted on."""
_PIECE = 1 << 16
"""Vectors taken at once."""


@dataclass(frozen=True, kw_only=True)
class VectorTokenizerConfig(TokenizerConfig):
    dim: int = 32
    width: int = 256
    """Numbers of a vector."""
    standardize: bool = True
    """Take each channel's mean off and divide by its deviation, both of the training set, before the encoder."""
    encoder: EncoderConfig = field(default_factory=MLPConfig)
    """Encoder and decoder. Its `in_channels` and `dim` are filled in."""

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width must be positive, got {self.width}.")
        object.__setattr__(self, "encoder", self.encoder.filled(self.width, self.dim))


@register_tokenizer("vector", VectorTokenizerConfig)
class VectorTokenizer(Tokenizer):
    """x (B, F) finite <-> ids (B, L, 1).

    Attributes:
        standard: before the encoder. A part with buffers of its own, which is all that transformers keeps of buffers.
    """

    config: VectorTokenizerConfig
    suffix = ".npy"

    def __init__(self, config: VectorTokenizerConfig, quantizer: Quantizer | None) -> None:
        super().__init__()
        if quantizer is None:
            raise ValueError("a tokenizer of vectors needs a quantizer. Example: quantizer.name=rq.")
        self.config = config
        self.networks = networks.build(config.encoder)
        self.quantizer = quantizer
        self.standard = Standard(config.width)

    @property
    def spec(self) -> CodeSpec:
        sizes = tuple(self.quantizer.codebook_sizes)
        return CodeSpec(modality="vector", codebook_sizes=sizes, channels=self.config.width)

    @property
    def wants_sample(self) -> bool:
        return self.config.standardize and not int(self.standard.measured)

    def measure(self, sample: Iterable[Tensor]) -> None:
        self.standard.measure(self._checked(rows) for rows in sample)

    def compared(self, x: Tensor) -> Tensor:
        """(B, F) vectors as they came -> standardised: what the encoder sees, and what errors are measured in."""
        return self.standard(x)

    def _checked(self, x: Tensor) -> Tensor:
        self.check(x)
        return x

    def preprocess(self, source: Any) -> Tensor:
        """A .npy file, its bytes or an array (F,) or (B, F) -> x (B, F).

        Raises:
            ValueError: no array of numbers of this width.
        """
        array = read_array(source)
        if array.ndim == 1:
            array = array[None]
        x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        self.check(x)
        return x

    def check(self, x: Tensor) -> None:
        self._check_shape(x)
        if not bool(x.isfinite().all()):
            row = int((~x.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"vector {row} of x holds NaN or infinity. Leave it out.")

    def _check_shape(self, x: Tensor) -> None:
        if x.ndim != 2 or x.shape[1] != self.config.width or not x.is_floating_point():
            raise ValueError(
                f"x is {x.dtype} of shape {tuple(x.shape)}; this tokenizer takes vectors (B, {self.config.width}) of "
                "floats. Another width is another tokenizer: tokenizer.width."
            )

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        self._check_shape(x)
        if lengths is not None:
            raise ValueError("Vectors have no lengths: each is one position.")
        z = self.networks.encoder(self.compared(x.float()))
        return Latents(z[:, None], None, None, torch.full((x.shape[0], 1), self.config.width, device=x.device))

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        return self.standard.back(self.networks.decoder(values[:, 0]).float())

    def write(self, x: Tensor, path: Path) -> None:
        np.save(path, x.cpu().numpy(), allow_pickle=False)

    @torch.inference_mode()
    def last_costs(self, x: Tensor, ids: Tensor) -> Tensor:
        """(B, F) vectors and their ids (B, L) -> (B, K) squared distances of latents to what each last code makes.

        Latents are taken as the quantizer sees them, without rounding: a grid's projections are no identity.
        """
        size = self.quantizer.codebook_sizes[-1]
        z = self.quantizer.relax(self.embed(x).z)
        choices = ids[:, None].expand(-1, size, -1).clone()
        choices[..., -1] = torch.arange(size, device=ids.device)
        values = self.quantizer.decode(choices.flatten(0, 1)[..., None]).view(len(x), size, -1)
        return (values - z).square().sum(-1)


@dataclass(frozen=True, kw_only=True)
class FittedVectorConfig(VectorTokenizerConfig, FittedConfig):
    dim: int = 0
    """As `width`: there is no encoder."""
    encoder: EncoderConfig = field(default_factory=RotationConfig)
    """A rotation, which `rotate` fits."""
    rotate: bool = False
    """Fit a rotation of the channels with the codes (optimised product quantization)."""

    def __post_init__(self) -> None:
        if self.dim not in (0, self.width):
            raise ValueError(f"dim={self.dim} is not width={self.width}: there is no encoder between. Leave it out.")
        object.__setattr__(self, "dim", self.width)
        super().__post_init__()


@register_tokenizer("vector_fitted", FittedVectorConfig)
class FittedVectorTokenizer(VectorTokenizer, FittedTokenizer):
    """Vectors coded as they are, by clusters of them: residual k-means and product quantization, without an encoder."""

    config: FittedVectorConfig
    networks: Rotation

    @property
    def fitted(self) -> bool:
        return bool(self.standard.measured)

    def fit(self, sample: Iterable[Tensor]) -> dict[str, float]:
        rows = torch.cat([self._checked(rows.float()) for rows in sample] or [torch.empty(0, self.config.width)])
        if self.config.standardize:
            self.measure(rows.split(_PIECE))
        for piece in rows.split(_PIECE):  # in place: a sample may be gigabytes
            piece.copy_(self.compared(piece))
        if self.config.rotate:
            self.networks.turn(self._fit_rotation(rows[:_OPQ_ROWS]))
            for piece in rows.split(_PIECE):
                piece.copy_(self.networks.encoder(piece))
        self.quantizer.fit(rows)
        self.standard.measured.fill_(len(rows))
        squares = sum(float((self._coded(piece) - piece).square().sum()) for piece in rows.split(_PIECE))
        return {"vectors": len(rows), "error": round(squares / rows.numel(), 4)}

    def _fit_rotation(self, z: Tensor) -> Tensor:
        """Codes for the rotation, then the rotation for the codes, in turns: (N, F) -> (F, F) (Ge et al., 3.1)."""
        matrix = torch.eye(z.shape[1])
        for _ in range(_OPQ_ROUNDS):
            turned = z @ matrix
            self.quantizer.fit(turned)
            left, _, right = torch.linalg.svd(z.T @ self._coded(turned))
            matrix = left @ right
        return matrix

    def _coded(self, z: Tensor) -> Tensor:
        """(N, F) -> (N, F), what their codes make of them."""
        return self.quantizer.decode(self.quantizer.encode(z[:, None]))[:, 0]

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        self.require_fitted()
        return super().embed(x, lengths)
