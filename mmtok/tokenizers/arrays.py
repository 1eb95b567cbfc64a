"""Arrays of numbers, of files or of memory; nothing is unpickled."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor


def read_array(source: Any) -> np.ndarray:
    """A .npy file, its bytes or an array -> an array of numbers.

    Raises:
        ValueError: it is none; nothing is unpickled.
    """
    if isinstance(source, Tensor):
        source = source.numpy()
    if isinstance(source, str | Path | bytes):
        name = "the bytes" if isinstance(source, bytes) else str(source)
        try:
            source = np.load(io.BytesIO(source) if isinstance(source, bytes) else source, allow_pickle=False)
        except FileNotFoundError as error:
            raise ValueError(f"there is no file {source}.") from error
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(f"{name} cannot be read as an array: {error}. Write it with numpy.save.") from error
    array = np.asarray(source)
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
        raise ValueError(f"an array of {array.dtype} {array.shape} is no vector (F,) nor several (B, F) of numbers.")
    return array
