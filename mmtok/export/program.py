"""Encoder and decoder as programs of `torch.export`: graphs that run without any of our sources.

`encoder.pt2` takes x and gives ids, `decoder.pt2` takes ids and gives x; (B, L, H, W) ids for pictures, (B, L, T) for
sounds. Batch and size are free; sizes are whole positions, so what is left of one is filled by the caller (a picture's
last row and column, silence). They compute in float32 on the device they were exported on, the CPU.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from mmtok.export.golden import Golden, differences
from mmtok.tokenizers.base import Tokenizer

ENCODER, DECODER = "encoder.pt2", "decoder.pt2"
_FEWEST = {"image": 4, "audio": 8}
"""Positions a side, or frames, that a program takes at least: shorter signals would be padded in another way."""
_MOST = 1 << 16


class _Encode(nn.Module):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, x: Tensor) -> Tensor:
        latents = self.tokenizer.embed(x)
        ids = self.tokenizer.quantizer.encode(latents.z, None, grid=latents.grid)
        return ids if latents.grid is None else ids.unflatten(2, latents.grid)


class _Decode(nn.Module):
    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.step = tokenizer.spec.downsample

    def forward(self, ids: Tensor) -> Tensor:
        sides = tuple(ids.shape[2:])
        grid = (sides[0], sides[1]) if len(sides) == 2 else None
        values = self.tokenizer.quantizer.decode(ids.flatten(2), grid=grid)
        return self.tokenizer.synthesise(values, grid, tuple(side * self.step for side in sides))


def write_programs(tokenizer: Tokenizer, folder: Path, items: Sequence[Golden], part: str) -> None:
    """Export both halves, or one, and compare what was written with the golden inputs.

    Raises:
        ValueError: PyTorch cannot export it, or the program gives something else.
    """
    _refuse(tokenizer, items)
    spec = tokenizer.spec
    step, fewest = spec.downsample, _FEWEST[spec.modality]
    names = ("rows", "columns") if spec.modality == "image" else ("frames",)
    positions = [Dim(name, min=fewest, max=_MOST) for name in names]
    batch = Dim("batch", min=1, max=_MOST)
    # No two alike, and neither 0 nor 1: torch.export takes sizes that are equal in the example for one.
    shape = tuple(range(fewest + 3, fewest + 3 + len(names)))
    if part != "decoder":
        x = torch.zeros(2, spec.channels, *(side * step for side in shape))
        free = {0: batch} | {2 + axis: step * size for axis, size in enumerate(positions)}
        _export(_Encode(tokenizer), x, free, folder / ENCODER)
    if part != "encoder":
        ids = torch.zeros(2, len(spec.codebook_sizes), *shape, dtype=torch.int64)
        free = {0: batch} | dict(enumerate(positions, 2))
        _export(_Decode(tokenizer), ids, free, folder / DECODER)
    if broken := next(check_programs(folder, items, step), None):
        raise ValueError(f"torch.export changed what this tokenizer computes: {broken}. Leave --torch-export out.")


def _refuse(tokenizer: Tokenizer, items: Sequence[Golden]) -> None:
    if any(isinstance(part, nn.RNNBase) for part in tokenizer.modules()):
        raise ValueError(
            "torch.export unrolls an LSTM over the frames of one length, so there is no program of this tokenizer "
            "(encoder.core=lstm). Leave --torch-export out."
        )
    if extras := sorted(items[0].codes.extras):
        raise ValueError(
            f"a program gives ids alone, and this tokenizer's codes have a {extras[0]} beside them "
            "(tokenizer.normalize). Leave --torch-export out."
        )


def _export(module: nn.Module, example: Tensor, free: dict[int, Any], path: Path) -> None:
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=(free,), strict=False)
    except Exception as error:  # of whatever kind PyTorch's tracer has
        lines = [line.strip(" -") for line in str(error).strip().splitlines()[:2]]
        raise ValueError(f"torch.export cannot make {path.name} of this tokenizer: {' '.join(lines)}") from error
    # They would be kept as a pickle.
    program.example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how PyTorch lays out what it writes and reads
        torch.export.save(program, path)


def check_programs(folder: Path, items: Sequence[Golden], step: int) -> Iterator[str]:
    """What programs do not do as the golden inputs want it, alone and in a batch of two; none where there is none.

    Args:
        folder: of the bundle.
        items: golden inputs; those of fewer positions than programs take are left out.
        step: pixels a side or samples of a position.
    """
    encoder, decoder = (_load(folder / name) for name in (ENCODER, DECODER))
    for number, item in enumerate(items):
        sides = item.codes.grid or (item.codes.ids.shape[2],)
        if min(sides) < _FEWEST["audio" if item.codes.grid is None else "image"]:
            continue
        for count in (1, 2):
            where = f"item {number}, {count} at a time"
            if encoder is not None and item.x is not None:
                ids = encoder(_repeated(whole(item.x, step), count))
                if said := differences(item, ids=ids.flatten(2)[-1:]):
                    yield f"{ENCODER}, {where}: {said}"
            if decoder is not None and item.decoded is not None:
                x = decoder(_repeated(item.codes.ids.unflatten(2, sides), count))[-1:]
                size = item.decoded.shape[2:]
                cut = x[:, :, : size[0]] if len(size) == 1 else x[:, :, : size[0], : size[1]]
                if said := differences(item, decoded=cut):
                    yield f"{DECODER}, {where}: {said}"


def whole(x: Tensor, step: int) -> Tensor:
    """x filled up to whole positions, as programs take it: by its last row and column, or by silence."""
    fill = [pad for side in reversed(x.shape[2:]) for pad in (0, -side % step)]
    return F.pad(x, fill, mode="replicate") if x.ndim == 4 else F.pad(x, fill)


def _repeated(x: Tensor, count: int) -> Tensor:
    return x.repeat(count, *[1] * (x.ndim - 1))


def _load(path: Path) -> nn.Module | None:
    """The program of a file, of JSON and raw tensors.

    Raises:
        ValueError: something in it would be unpickled.
    """
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            pickle = name.endswith((".pt", ".pkl")) and archive.getinfo(name).file_size  # ours are empty
            if pickle or (name.endswith("_config.json") and b'"use_pickle": true' in archive.read(name)):
                raise ValueError(f"{path.name} holds a pickle ({name}), which could run anything when it is read.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(path).module()
