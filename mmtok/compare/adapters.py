"""Tokenizers of others in the same tables: whatever has `encode` and `decode`.

`--with NAME=package.module:function` calls the function without arguments; it gives an object as `Outside` says.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from mmtok.codes import CodeSpec, Modality
from mmtok.evaluation.finite import require_finite
from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig
from mmtok.schema import ConfigError
from mmtok.tokenizers.base import Tokenizer, TokenizerConfig
from mmtok.tokenizers.latents import Latents


@runtime_checkable
class Outside(Protocol):
    """What a tokenizer from elsewhere must have to be measured."""

    modality: Modality
    codebook_sizes: tuple[int, ...]
    """Number of ids of each level."""
    downsample: int
    """Pixels (a side) or samples behind one position."""

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) or sounds (B, C, S) in [-1, 1] -> ids (B, L, T), or (B, L, H', W') of pictures."""

    def decode(self, ids: Tensor) -> Tensor:
        """Ids as `encode` gave them -> signals of at least the size that went in; what is more is cut."""


class _Given(Quantizer):
    """Codes that are there already: latents are ids."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.config = QuantizerConfig(len(sizes))
        self.codebook_sizes = sizes

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        return Quantized(z, z.long().transpose(1, 2), {}, {})

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        return ids.transpose(1, 2).float()


class Adapted(Tokenizer):
    """A tokenizer from elsewhere. Its ids pass as float32, which holds codebooks up to 2^24 exactly."""

    def __init__(self, outside: Outside, name: str = "the adapter") -> None:
        super().__init__()
        if max(outside.codebook_sizes) > 1 << 24:
            raise ConfigError(
                f"{name}: codebooks of {max(outside.codebook_sizes):,} codes are more than the 2^24 an adapter takes."
            )
        self.name = name
        self.notes: list[str] = []
        """What is odd, and changes no more than what is said of it."""
        self.config = TokenizerConfig(dim=len(outside.codebook_sizes))
        self.quantizer = _Given(tuple(outside.codebook_sizes))
        self.outside = outside
        if isinstance(outside, nn.Module):
            self.inner = outside  # moves with the device, and its parameters count
        self.suffix = ".wav" if outside.modality == "audio" else ".png"

    @property
    def spec(self) -> CodeSpec:
        one = self.outside
        channels = getattr(one, "channels", 1 if one.modality == "audio" else 3)
        rate = getattr(one, "sample_rate", None)
        return CodeSpec(one.modality, tuple(one.codebook_sizes), one.downsample, channels, rate)

    def embed(self, x: Tensor, lengths: Tensor | None = None) -> Latents:
        with self._telling("encode"):
            ids = self.outside.encode(x)
        levels = len(self.quantizer.codebook_sizes)
        if ids.is_floating_point() or ids.dtype == torch.bool:
            raise ConfigError(f"{self.name}: encode gave ids of {ids.dtype}; wanted whole numbers: ids.long().")
        if (ids.ndim != x.ndim and ids.ndim != 3) or ids.shape[:2] != (len(x), levels):
            raise ConfigError(
                f"{self.name}: encode gave ids {tuple(ids.shape)}; wanted (B, L, T) with B={len(x)}, L={levels}."
            )
        for level, size in enumerate(self.quantizer.codebook_sizes):
            if ids.numel() and not (int(ids[:, level].min()) >= 0 and int(ids[:, level].max()) < size):
                raise ConfigError(f"{self.name}: encode gave ids of level {level} outside 0 .. {size - 1}.")
        self._note_grid(tuple(x.shape[2:]), tuple(ids.shape[2:]))
        grid = (ids.shape[2], ids.shape[3]) if ids.ndim == 4 else None
        sizes = torch.tensor(x.shape[2:], device=x.device).expand(len(x), -1)
        return Latents(ids.flatten(2).transpose(1, 2).float(), None, grid, sizes)

    def synthesise(
        self,
        values: Tensor,
        grid: tuple[int, int] | None,
        size: tuple[int, ...],
        *,
        mask: Tensor | None = None,
        gain: Tensor | None = None,
    ) -> Tensor:
        ids = values.round().long().transpose(1, 2)
        with self._telling("decode"):
            y = self.outside.decode(ids if grid is None else ids.unflatten(2, grid))
        require_finite(y, self.name)
        for axis, wanted in enumerate(size, start=2):
            if y.shape[axis] < wanted:
                raise ConfigError(f"{self.name}: decode gave {tuple(y.shape)}, less than the {size} that went in.")
            y = y.narrow(axis, 0, wanted)
        return y

    def _note_grid(self, size: tuple[int, ...], grid: tuple[int, ...]) -> None:
        """Note, once, positions that are more or fewer than `downsample` says; a tenth more may be padding."""
        said, found = prod(-(-side // self.outside.downsample) for side in size), prod(grid)
        if not self.notes and abs(found - said) > max(1, said // 10):
            written = [" x ".join(map(str, sides)) for sides in (grid, size)]
            self.notes.append(
                f"{self.name} gave {written[0]} positions for {written[1]}, and downsample={self.outside.downsample} "
                f"says {said}: what goes by it, as the probe of the input, is of pieces of another size."
            )

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        """An error of theirs as one line that names the adapter and where it was raised."""
        try:
            yield
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{what} raised {type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
            raise ConfigError(f"{self.name}: {said}.") from error


def adapted(text: str) -> Adapted:
    """The tokenizer of `package.module:function`.

    Raises:
        ConfigError: there is none, or it lacks something.
    """
    module, _, name = text.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"{text}: {error}. Write package.module:function, with its folder on PYTHONPATH.") from error
    if not isinstance(made, Outside):
        lacks = [
            one for one in ("modality", "codebook_sizes", "downsample", "encode", "decode") if not hasattr(made, one)
        ]
        raise ConfigError(f"{text} gives a {type(made).__name__} without {', '.join(lacks)}.")
    return Adapted(made, text)
