"""Files of tensors: one way of writing safetensors, for codes, models and bundles."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def write_tensors(tensors: Mapping[str, Tensor], path: str | Path, header: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file that the same people may read as any other file written here.

    The library makes files that only their owner can read, which on a cluster is not the colleague they are for.

    Args:
        tensors: on any device, of any layout; those that share memory are written twice.
        path: of the file; one that exists is replaced.
        header: strings to go with them.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    own = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(own, path, dict(header) if header is not None else None)
        path.chmod(mode)
    except SafetensorError as error:
        path.unlink(missing_ok=True)
        raise OSError(errno.EIO, f"cannot be written ({error})", str(path)) from error
