"""`.mmc`: codes in as few bits as they need, with what it takes to decode them and a checksum. Nothing is unpickled.

DAC keeps 16 bits a code in a pickle, which runs whatever it holds (audio.md trap 26); EnCodec's entropy coder does not
decode on every machine what another wrote (trap 30). Here each id has ceil(log2(codebook size)) bits.

    8 bytes   89 6D 6D 63 0D 0A 1A 0A: "mmc" between bytes that a transfer as text would change
    2         version (1), all numbers little-endian
    4, 8      bytes of the header, bytes of the body
    header    JSON: spec, tokenizer, lengths, source_size, grid, scales, kinds, extras, and what the writer added
    body      per item and level its ids, most significant bit first, filled to a byte; then the extras
    4         CRC-32 of everything before
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtok.codes import Codes, CodeSpec

SUFFIX = ".mmc"
_MAGIC = b"\x89mmc\r\n\x1a\n"
_VERSION = 1
_PREFIX = struct.Struct("<8sHIQ")
_CHECK = struct.Struct("<I")
_MAX_HEADER = 1 << 24
_ABSENT, _FULL, _HOLES = 0, 1, 2
"""Kinds of a level of an item: all -1; none; some, where 0 stands for -1 and all ids are one higher."""
_TYPES = {"float32": "<f4", "float64": "<f8", "int64": "<i8", "int32": "<i4", "uint8": "|u1"}


def write_mmc(codes: Codes, path: str | Path, spec: CodeSpec, **metadata: str) -> None:
    """Write codes; positions beyond an item's length are not kept, and come back as -1.

    Args:
        codes: of any tokenizer.
        path: of the file.
        spec: what the ids mean.
        metadata: more to know, as `tokenizer` (its fingerprint) and `source`.

    Raises:
        ValueError: ids that the spec does not have, or extras of a type that has no place in a file.
    """
    path = Path(path)
    body, header = _pack(codes, spec)
    header |= {"spec": asdict(spec), "metadata": metadata}
    text = json.dumps(header, separators=(",", ":")).encode()
    data = _PREFIX.pack(_MAGIC, _VERSION, len(text), len(body)) + text + body
    path.write_bytes(data + _CHECK.pack(zlib.crc32(data)))


def read_mmc(path: str | Path) -> tuple[Codes, CodeSpec, dict[str, str]]:
    """Read what `write_mmc` wrote: codes, spec and metadata.

    Raises:
        ValueError: the file is no .mmc, of a later version, cut short, or damaged; says which.
    """
    text, body = _open(Path(path))
    try:
        header = json.loads(text)
        spec = CodeSpec(**{key: _tuple(value) for key, value in header["spec"].items()})
        codes = _unpack(header, spec, body)
        metadata = {str(key): str(value) for key, value in header["metadata"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{path} has a true checksum and no sense: {error}. It was not written by mmtok.") from error
    return codes, spec, metadata


def is_mmc(path: str | Path) -> bool:
    """Whether a file begins as a .mmc does, whatever its name."""
    with Path(path).open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def bits_of(size: int) -> int:
    """Bits of one id of a codebook."""
    return max(size - 1, 0).bit_length()


def _open(path: Path) -> tuple[bytes, bytes]:
    """Header and body of a file that is whole."""
    data = path.read_bytes()
    if not data.startswith(_MAGIC):
        raise ValueError(f"{path} is no .mmc file. Write one with 'mmtok encode --format mmc'.")
    if len(data) < _PREFIX.size:
        raise ValueError(f"{path} is cut short: {len(data)} bytes are less than any .mmc file has.")
    _, version, header, body = _PREFIX.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"{path} is of version {version}, and this mmtok reads {_VERSION}. Update mmtok.")
    whole = _PREFIX.size + header + body + _CHECK.size
    if len(data) < whole:
        raise ValueError(f"{path} is cut short: {len(data):,} of {whole:,} bytes are there.")
    end = len(data) - _CHECK.size
    if len(data) > whole or header > _MAX_HEADER or _CHECK.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise ValueError(f"{path} is damaged: its checksum does not fit its content.")
    return data[_PREFIX.size : _PREFIX.size + header], data[_PREFIX.size + header : end]


def _pack(codes: Codes, spec: CodeSpec) -> tuple[bytes, dict[str, Any]]:
    """The body, and what the header says of it."""
    ids = codes.ids.cpu().numpy()
    if ids.shape[1] != len(spec.codebook_sizes):
        raise ValueError(f"These codes have {ids.shape[1]} levels, and the spec {len(spec.codebook_sizes)}.")
    parts, kinds = [], []
    for item, length in zip(ids, codes.lengths.tolist(), strict=True):
        for level, size in zip(item[:, :length], spec.codebook_sizes, strict=True):
            if level.size and not -1 <= level.min() <= level.max() < size:
                raise ValueError(f"ids lie in -1 .. {size - 1} by the spec, got {level.min()} .. {level.max()}.")
            missing = (level < 0).sum()
            kinds.append(_FULL if not missing else _ABSENT if missing == level.size else _HOLES)
            if kinds[-1] != _ABSENT:
                parts.append(_to_bits(level + (kinds[-1] == _HOLES), _width(size, kinds[-1])))
    extras = []
    for name, value in codes.extras.items():
        array = value.detach().cpu().numpy()
        if str(array.dtype) not in _TYPES:
            raise ValueError(f"extras.{name} is {array.dtype}; a .mmc file holds {', '.join(_TYPES)}.")
        extras.append([name, str(array.dtype), list(array.shape)])
        parts.append(array.astype(_TYPES[str(array.dtype)]).tobytes())
    header = {
        "lengths": codes.lengths.tolist(),
        "source_size": codes.source_size.tolist(),
        "frames": ids.shape[2],
        "kinds": "".join(map(str, kinds)),
        "grid": codes.grid,
        "scales": codes.scales,
        "extras": extras,
    }
    return b"".join(parts), {key: value for key, value in header.items() if value not in (None, [])}


def _unpack(header: dict[str, Any], spec: CodeSpec, body: bytes) -> Codes:
    lengths, frames, sizes = header["lengths"], header["frames"], spec.codebook_sizes
    kinds = [int(kind) for kind in header["kinds"]]
    if len(kinds) != len(lengths) * len(sizes) or not set(kinds) <= {_ABSENT, _FULL, _HOLES}:
        raise ValueError("its kinds do not fit its levels")
    if not all(0 <= length <= frames for length in lengths):
        raise ValueError("its lengths do not fit its frames")
    # What is absent takes no bytes: without a bound, a few of them could ask for all memory.
    if len(kinds) * frames > 1024 * 8 * len(body) + (1 << 20):
        raise ValueError("it is far shorter than the frames it promises")
    ids = np.full((len(lengths), len(sizes), frames), -1, dtype=np.int64)
    at = 0
    for index, kind in enumerate(kinds):
        item, level = divmod(index, len(sizes))
        if kind == _ABSENT:
            continue
        count, width = lengths[item], _width(sizes[level], kind)
        end = at + -(-count * width // 8)
        if end > len(body):
            raise ValueError("its codes end too early")
        found = _from_bits(body[at:end], count, width) - (kind == _HOLES)
        if count and found.max() >= sizes[level]:
            raise ValueError(f"level {level} has an id of {found.max()} and {sizes[level]} codes")
        ids[item, level, :count], at = found, end
    extras = {}
    for name, kind, shape in header.get("extras", []):
        end = at + prod(shape) * np.dtype(_TYPES[kind]).itemsize
        array = np.frombuffer(body[at:end], _TYPES[kind]).astype(kind).reshape(shape)
        extras[name], at = torch.from_numpy(array), end
    if at != len(body):
        raise ValueError("it holds more than it says")
    return Codes(
        torch.from_numpy(ids),
        _int64(lengths),
        _int64(header["source_size"]),
        grid=_tuple(header.get("grid")),
        scales=_tuple(header.get("scales")),
        extras=extras,
    )


def _width(size: int, kind: int) -> int:
    return bits_of(size + (kind == _HOLES))


def _to_bits(ids: np.ndarray, width: int) -> bytes:
    shifts = np.arange(width - 1, -1, -1)
    return np.packbits((ids[:, None] >> shifts & 1).astype(np.uint8)).tobytes()


def _from_bits(data: bytes, count: int, width: int) -> np.ndarray:
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count * width).reshape(count, width)
    return bits.astype(np.int64) @ (1 << np.arange(width - 1, -1, -1, dtype=np.int64))


def _int64(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def _tuple(value: Any) -> Any:
    """JSON lists back to the tuples they were."""
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
