"""Codes: what leaves every tokenizer, whatever went in; CodeSpec: what those ids mean."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from math import log2
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from mmtok.tensorfile import write_tensors

Modality = Literal["image", "audio", "text", "vector"]


@dataclass(frozen=True)
class CodeSpec:
    """What a reader of ids must know, without the tokenizer."""

    modality: Modality
    codebook_sizes: tuple[int, ...]
    """Number of ids of each level; level l uses 0 .. codebook_sizes[l] - 1."""
    downsample: int = 1
    """Pixels (a side) or samples behind one position."""
    channels: int = 1
    """Channels of the signal."""
    sample_rate: int | None = None
    """Samples a second, for audio."""
    stride: tuple[int, ...] = ()
    """Positions between two codes of each level, where some level ticks slower than T; empty means 1 each."""
    positions: int | None = None
    """Positions of an item, whatever its size, where they do not grow with it."""
    nested: bool = False
    """Whether the first positions do without the others, so that an item may have fewer of them."""

    @property
    def bits_per_position(self) -> float:
        """Bits a position costs without entropy coding: the sum of log2(codebook size), each by its stride."""
        strides = self.stride or (1,) * len(self.codebook_sizes)
        return sum(log2(size) / stride for size, stride in zip(self.codebook_sizes, strides, strict=True))


@dataclass(frozen=True)
class Codes:
    """The ids of a batch, and what it takes to turn them back."""

    ids: Tensor
    """(B, L, T) int64; L levels (nested ones outer-major); -1 where there is no code, which decodes to zero."""
    lengths: Tensor
    """(B,) int64, positions of T in use."""
    source_size: Tensor
    """(B, n) int64, size of each source in pixels (height, width) or samples."""
    grid: tuple[int, int] | None = None
    """(H, W) with H * W = T, shared by the batch, for images."""
    scales: tuple[tuple[int, int], ...] | None = None
    """Grids of a multi-scale tokenizer: L = 1 and T = sum of h * w."""
    extras: dict[str, Tensor] = field(default_factory=dict)
    """Tensors that travel with an item, batch first (a gain, say)."""

    def __post_init__(self) -> None:
        if self.ids.ndim != 3:
            raise ValueError(f"ids are (batch, levels, positions), got {tuple(self.ids.shape)}.")
        if self.ids.dtype != torch.int64:
            raise ValueError(f"ids are int64, got {self.ids.dtype}. Use ids.long().")

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str) -> Codes:
        """The same codes on another device."""
        return self._map(lambda one: one.to(device))

    def select(self, rows: Tensor) -> Codes:
        """The codes of some items, chosen by a mask (B,) or by their numbers."""
        return self._map(lambda one: one[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Codes:
        extras = {name: change(value) for name, value in self.extras.items()}
        ids, lengths, sizes = (change(one) for one in (self.ids, self.lengths, self.source_size))
        return replace(self, ids=ids, lengths=lengths, source_size=sizes, extras=extras)

    def save(self, path: str | Path, spec: CodeSpec, **metadata: str) -> None:
        """Write a safetensors file: the tensors, the grid and the spec. Readable without mmtok.

        Raises:
            OSError: it cannot be written; nothing is left of it.
        """
        tensors = {"ids": self.ids, "lengths": self.lengths, "source_size": self.source_size}
        tensors |= {f"extras.{name}": value for name, value in self.extras.items()}
        header = {"format": "mmtok-codes-1", "grid": json.dumps(self.grid), "scales": json.dumps(self.scales)}
        header |= {"spec": json.dumps(asdict(spec)), **metadata}
        write_tensors(tensors, path, header)

    @classmethod
    def load(cls, path: str | Path) -> tuple[Codes, CodeSpec]:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is no safetensors file of codes.
        """
        header, tensors = _read(path)
        spec = {key: _tuple(value) for key, value in json.loads(header["spec"]).items()}
        extras = {name.removeprefix("extras."): value for name, value in tensors.items() if name.startswith("extras.")}
        codes = cls(
            ids=tensors["ids"],
            lengths=tensors["lengths"],
            source_size=tensors["source_size"],
            grid=_tuple(json.loads(header["grid"])),
            scales=_tuple(json.loads(header["scales"])),
            extras=extras,
        )
        return codes, CodeSpec(**spec)


def read_header(path: str | Path) -> dict[str, str]:
    """What a file of codes says beside its tensors: format, grid, spec, and what the writer added."""
    return _read(path)[0]


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as codes: {error}. Write codes with 'mmtok encode'.") from error
    if header.get("format") != "mmtok-codes-1":
        raise ValueError(f"{path} is a safetensors file, but not one of codes. Write codes with 'mmtok encode'.")
    return header, tensors


def _tuple(value: Any) -> Any:
    """JSON lists back to the tuples they were."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
