"""Checkpoints that are pickles, read without running anything in them: tensors, plain containers and inert stubs.

A pickle names functions and calls them; that is how a file takes over the process that reads it. Here every name is
answered by something of this module: a few makers of tensors and mappings, and for all others a stub, which takes any
call and any state and does nothing. Storages are not read before a tensor of them is asked for.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip
_OLD = (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", b"\x80\x02\x8a")
"""How checkpoints of PyTorch before 1.6 begin."""


class Stub:
    """What stands for an object of any class: it takes everything, and does and is nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Stub:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, *_: Any) -> None:
        pass

    def __setitem__(self, *_: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass

    def add(self, _: Any) -> None:
        pass


class _Fixed:
    """A callable of this module that a pickle can call, but not change."""

    __slots__ = ()

    def __setstate__(self, _: Any) -> NoReturn:
        raise pickle.UnpicklingError("state for what has none")


class _Plain(dict[Any, Any]):
    """An ordered mapping; what a pickle says besides about it (`_metadata`) is left out."""

    def __setstate__(self, _: Any) -> None:
        pass


class _Mapping(_Fixed):
    __slots__ = ()

    def __call__(self, items: Any = ()) -> _Plain:
        return _Plain(items)


# Named tuples: no state of a pickle changes them.
class _Kind(NamedTuple):
    """The type of a storage."""

    dtype: torch.dtype


class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype


class Unread(NamedTuple):
    """A tensor that is still in the file."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Rebuild(_Fixed):
    """`torch._utils._rebuild_tensor_v2`, and its like without what comes after the strides."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Unread:
        sizes = (offset, *shape, *strides)
        if not isinstance(storage, _Storage) or not all(type(size) is int and size >= 0 for size in sizes):
            raise pickle.UnpicklingError("a tensor that makes no sense")
        return Unread(storage, offset, tuple(shape), tuple(strides))


class _Parameter(_Fixed):
    __slots__ = ()

    def __call__(self, data: Any, *_: Any) -> Any:
        return data


_MAKERS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _Parameter(),
    ("collections", "OrderedDict"): _Mapping(),
    **{("torch", name): _Kind(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Never an import: a class of its own for each name, since some are keys of a mapping.
        return _MAKERS.get((module, name)) or type("Stub", (Stub,), {"__module__": __name__})

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _Kind(dtype), str(key), _, _):
                return _Storage(key, dtype)
        raise pickle.UnpicklingError("a storage of an unknown kind")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose tensors are read when they are asked for."""

    path: Path
    content: Any
    """Plain containers, numbers and strings, `Unread` tensors, and stubs."""

    def tensors(self, state: Mapping[Any, Any], prefix_off: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The tensors of a mapping of the content.

        Args:
            state: names -> `Unread`; what is no tensor is left out.
            prefix_off: beginnings of names to leave in the file.

        Raises:
            ValueError: the file is damaged.
        """
        found = {
            name: value
            for name, value in state.items()
            if isinstance(name, str) and isinstance(value, Unread) and not name.startswith(prefix_off)
        }
        with _damaged(self.path), zipfile.ZipFile(self.path) as file:
            read = {key: _bytes(file, f"data/{key}") for key in {value.storage.key for value in found.values()}}
        with _damaged(self.path):
            return {name: _tensor(read[value.storage.key], value) for name, value in found.items()}


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of `torch.save`, of PyTorch 1.6 or later.

    Raises:
        ValueError: there is none, or it is damaged, or older.
    """
    if not path.is_file():
        raise ValueError(f"there is no {path}.")
    with path.open("rb") as file:
        begins = file.read(16)
    if begins.startswith(_OLD):
        raise ValueError(
            f"{path} was saved by PyTorch before 1.6. Save it again where you trust it: "
            "torch.save(torch.load(OLD, weights_only=False), NEW)."
        )
    with _damaged(path), zipfile.ZipFile(path) as archive:
        order = _bytes(archive, "byteorder") if _entry(archive, "byteorder") else b"little"
        content = _Unpickler(io.BytesIO(_bytes(archive, "data.pkl"))).load()
    if order != b"little":
        raise ValueError(f"{path} was saved on a big-endian machine. Save it again on a little-endian one.")
    return Checkpoint(path, content)


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a pickle can end in any of them
        raise ValueError(f"{path} is damaged, or no checkpoint of PyTorch ({error}).") from error


def _entry(archive: zipfile.ZipFile, name: str) -> str | None:
    """Where a file of a checkpoint is: all of them are in one folder, of any name."""
    return next((entry for entry in archive.namelist() if entry.partition("/")[2] == name), None)


def _bytes(archive: zipfile.ZipFile, name: str) -> bytearray:
    info = archive.getinfo(_entry(archive, name) or name)
    if info.compress_type != zipfile.ZIP_STORED:  # PyTorch never compresses; what does may unfold to any size
        raise zipfile.BadZipFile(f"{name} is compressed")
    return bytearray(archive.read(info))


def _tensor(data: bytearray, value: Unread) -> Tensor:
    if not prod(value.shape):
        return torch.empty(value.shape, dtype=value.storage.dtype)
    if len(data) < value.storage.dtype.itemsize:
        raise pickle.UnpicklingError("a tensor without a storage")
    flat = torch.frombuffer(data, dtype=value.storage.dtype)
    reach = value.offset + sum((size - 1) * step for size, step in zip(value.shape, value.strides, strict=True))
    if reach >= len(flat) or prod(value.shape) > len(flat):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return flat.as_strided(value.shape, value.strides, value.offset).clone()
