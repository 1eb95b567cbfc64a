"""Nearest code by one biased matmul: argmin over codes of |c|^2 / 2 - x.c, a chunk of rows at a time.

|x|^2 does not change the order, so it is left out; no square root, no one-hot and no N x K matrix, only a chunk of
scores that stays in the cache. The search is an operator of its own, so `torch.compile` sees one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmtok.exporting import exporting
from mmtok.quantizers.noise import gumbel

_CUDA_BYTES = 32 << 20
"""Scores of a chunk on a GPU: some of its L2 cache, and enough rows to fill it."""
_CACHE = Path("/sys/devices/system/cpu/cpu0/cache")
_CORE_BYTES = 1 << 20
"""A core's second-level cache, where the machine does not say."""
_FOLD = 32
"""Codes a row of scores is folded by before its argmin, on a CPU."""
_FOLD_FROM = 4096
"""Codes from which folding pays."""


def nearest(x: Tensor, codes: Tensor, bias: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
    """Index of the code nearest to each row: x (N, D), codes (K, D) -> (N,) int64. No gradient.

    With a `bias` (K,) it is the code of the greatest product x . c + bias; with `noise` besides, keys (N,) int32, that
    of the greatest product with Gumbel noise.

    Float32 throughout, whatever precision is set for matmuls: at half or TF32 precision near codes become ties, and
    training and encoding disagree.
    """
    assert x.dtype == codes.dtype == torch.float32, f"the search is in float32, got {x.dtype} and {codes.dtype}"
    if exporting():
        # An exported program runs where this operator is not.
        return torch.addmm(_cost(codes, bias), x, codes.t(), alpha=-1).argmin(1)
    return torch.ops.mmtok.nearest_code(x.detach(), codes.detach(), None if bias is None else bias.detach(), noise)


def _cost(codes: Tensor, bias: Tensor | None) -> Tensor:
    return codes.square().sum(1) / 2 if bias is None else -bias


@torch.library.custom_op("mmtok::nearest_code", mutates_args=())
def _nearest_code(x: Tensor, codes: Tensor, bias: Tensor | None, noise: Tensor | None) -> Tensor:
    rows, size = x.shape[0], codes.shape[0]
    ids = torch.empty(rows, dtype=torch.int64, device=x.device)
    if rows == 0:
        return ids
    step = min(rows, chunk_rows(codes))
    cost = _cost(codes, bias)
    fold = codes.device.type == "cpu" and size >= _FOLD_FROM and size % _FOLD == 0
    scores = x.new_empty(step, size)
    with exact_matmul():
        for start in range(0, rows, step):
            chunk = x[start : start + step]
            part = torch.addmm(cost, chunk, codes.t(), alpha=-1, out=scores[: chunk.shape[0]])
            if noise is not None:
                part -= gumbel(noise[start : start + step], size)
            if fold:
                ids[start : start + step] = _folded_argmin(part)
            else:
                torch.argmin(part, 1, out=ids[start : start + step])
    return ids


@_nearest_code.register_fake
def _(x: Tensor, codes: Tensor, bias: Any, noise: Any) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.int64)


def chunk_rows(codes: Tensor) -> int:
    """Rows of scores searched at a time, for codes (K, D)."""
    size, dim = codes.shape
    # Each chunk reads the whole codebook, so longer codes want more rows.
    budget = _CUDA_BYTES if codes.is_cuda else _cpu_bytes() * min(max(dim // 32, 1), 8)
    return max(16, budget // (4 * size))


def _cpu_bytes() -> int:
    """Scores of a chunk on a CPU, for short codes: what the threads' caches hold."""
    return core_bytes() * torch.get_num_threads()


@cache
def core_bytes(folder: Path = _CACHE) -> int:
    """A core's second-level cache, as Linux tells it."""
    try:
        levels = {(one / "level").read_text().strip(): (one / "size").read_text() for one in folder.glob("index*")}
        size = levels["2"].strip()
        return int(size.removesuffix("K")) << 10 if size.endswith("K") else int(size.removesuffix("M")) << 20
    except (OSError, KeyError, ValueError):  # no Linux, or a machine that hides it
        return _CORE_BYTES


def _folded_argmin(scores: Tensor) -> Tensor:
    """Argmin of each row. A CPU takes minima over columns with all its lanes, an argmin with one: so minima first."""
    rows, size = scores.shape
    folds = scores.view(rows, _FOLD, size // _FOLD)
    column = folds.amin(1).argmin(1)
    fold = folds.gather(2, column[:, None, None].expand(rows, _FOLD, 1))[..., 0].argmin(1)
    return fold * (size // _FOLD) + column


def nearest_few(x: Tensor, codes: Tensor, count: int, bias: Tensor | None = None) -> Tensor:
    """The `count` nearest codes of each row, the best first: as `nearest`, but (N, min(count, K))."""
    count = min(count, len(codes))
    if exporting():
        cost = torch.addmm(_cost(codes, bias), x, codes.t(), alpha=-1)
        return cost.topk(count, largest=False, sorted=True).indices
    return torch.ops.mmtok.nearest_codes(x.detach(), codes.detach(), count, None if bias is None else bias.detach())


@torch.library.custom_op("mmtok::nearest_codes", mutates_args=())
def _nearest_codes(x: Tensor, codes: Tensor, count: int, bias: Tensor | None) -> Tensor:
    ids, cost = torch.empty(len(x), count, dtype=torch.int64, device=x.device), _cost(codes, bias)
    step = chunk_rows(codes)
    with exact_matmul():
        for start in range(0, len(x), step):
            part = torch.addmm(cost, x[start : start + step], codes.t(), alpha=-1)
            ids[start : start + step] = part.topk(count, largest=False, sorted=True).indices
    return ids


@_nearest_codes.register_fake
def _(x: Tensor, codes: Tensor, count: int, bias: Any) -> Tensor:
    return x.new_empty(x.shape[0], count, dtype=torch.int64)


@contextmanager
def exact_matmul() -> Iterator[None]:
    """Float32 matmuls without TF32 or bfloat16 inside, and the caller's setting again after."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
