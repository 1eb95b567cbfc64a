"""Softmax over a whole codebook, a chunk of rows at a time, and again in backward: there is never an (N, K) matrix.

Logits are (x . key + bias + noise) * scale. What the chunks give are sums and rows, so memory beyond those is that of a
few chunks, whatever N; as in fused cross-entropies, backward computes what forward did not keep (image.md section 6).
The loops are operators of their own, so that `torch.compile` sees one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmtok.quantizers.base import full_precision
from mmtok.quantizers.noise import gumbel
from mmtok.quantizers.search import chunk_rows

_CUDA_CHUNKS = 8
"""Chunks of the search that a GPU takes at once here: the products have few rows at large K."""


def hard_values(
    x: Tensor,
    keys: Tensor,
    bias: Tensor | None,
    values: Tensor,
    ids: Tensor,
    scale: Tensor,
    noise: Tensor | None = None,
) -> Tensor:
    """The values of the chosen codes, with the gradient of the softmax's mean value to x, keys and bias.

    That is one-hot + softmax - sg(softmax) times the values: the straight-through step on indices.

    Args:
        x: (N, C) rows.
        keys: (K, C) what rows are compared with.
        bias: (K,) added to the products, or None.
        values: (K, D) of the codes; they get the gradient of the chosen one alone.
        ids: (N,) the chosen codes.
        scale: () factor of the logits, a constant.
        noise: (N,) int32 keys of Gumbel noise that was in the choice, or None.
    """
    return _Hard.apply(x, keys, bias, values, ids, scale, noise)


def soft_values(
    x: Tensor, keys: Tensor, bias: Tensor | None, values: Tensor, scale: Tensor, noise: Tensor | None = None
) -> Tensor:
    """The softmax's mean value (N, D). Arguments as in `hard_values`."""
    return _Soft.apply(x, keys, bias, values, scale, noise)


def entropies(x: Tensor, keys: Tensor, bias: Tensor | None, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Entropy of the softmax of each row (N,), and the weighted sum over rows of the softmaxes (K,).

    Args:
        x: (N, C) rows.
        keys: (K, C) what rows are compared with.
        bias: (K,) added to the products, or None.
        weight: (N,) of each row in the sum, a constant.
        scale: () factor of the logits, a constant.
    """
    return _Entropies.apply(x, keys, bias, weight, scale)


class _Hard(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, keys: Any, bias: Any, values: Any, ids: Any, scale: Any, noise: Any) -> Tensor:
        ctx.save_for_backward(x, keys, bias, values, ids, scale, noise)
        return F.embedding(ids, values)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, keys, bias, values, ids, scale, noise = ctx.saved_tensors
        dx, dkeys, dbias, _ = torch.ops.mmtok.soft_values_backward(
            x, keys, bias, values, scale, noise, grad.contiguous(), False
        )
        chosen = torch.zeros_like(values).index_add_(0, ids, grad) if ctx.needs_input_grad[3] else None
        return dx, dkeys, None if bias is None else dbias, chosen, None, None, None


class _Soft(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, keys: Any, bias: Any, values: Any, scale: Any, noise: Any) -> Tensor:
        ctx.save_for_backward(x, keys, bias, values, scale, noise)
        found: Tensor = torch.ops.mmtok.soft_values(x, keys, bias, values, scale, noise)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, keys, bias, values, scale, noise = ctx.saved_tensors
        dx, dkeys, dbias, dvalues = torch.ops.mmtok.soft_values_backward(
            x, keys, bias, values, scale, noise, grad.contiguous(), True
        )
        return dx, dkeys, None if bias is None else dbias, dvalues, None, None


class _Entropies(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, keys: Any, bias: Any, weight: Any, scale: Any) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, keys, bias, weight, scale)
        entropy, mass = torch.ops.mmtok.soft_entropies(x, keys, bias, weight, scale)
        return entropy, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_entropy: Tensor, by_mass: Tensor) -> tuple[Tensor | None, ...]:
        x, keys, bias, weight, scale = ctx.saved_tensors
        dx, dkeys, dbias = torch.ops.mmtok.soft_entropies_backward(
            x, keys, bias, weight, scale, by_entropy.contiguous(), by_mass.contiguous()
        )
        return dx, dkeys, None if bias is None else dbias, None, None


def _chunks(
    x: Tensor, keys: Tensor, bias: Tensor | None, scale: Tensor, noise: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Rows of x, and their logits."""
    step = chunk_rows(keys) * (_CUDA_CHUNKS if keys.is_cuda else 1)
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        logits = x[rows] @ keys.t() if bias is None else torch.addmm(bias, x[rows], keys.t())
        if noise is not None:
            logits += gumbel(noise[rows], len(keys))
        yield rows, logits.mul_(scale)


@torch.library.custom_op("mmtok::soft_values", mutates_args=())
def _soft_values(
    x: Tensor, keys: Tensor, bias: Tensor | None, values: Tensor, scale: Tensor, noise: Tensor | None
) -> Tensor:
    out = x.new_empty(len(x), values.shape[1])
    for rows, logits in _chunks(x, keys, bias, scale, noise):
        torch.mm(logits.softmax(1), values, out=out[rows])
    return out


@_soft_values.register_fake
def _(x: Tensor, keys: Tensor, bias: Any, values: Tensor, scale: Tensor, noise: Any) -> Tensor:
    return x.new_empty(x.shape[0], values.shape[1])


@torch.library.custom_op("mmtok::soft_values_backward", mutates_args=())
def _soft_values_backward(
    x: Tensor, keys: Tensor, bias: Tensor | None, values: Tensor, scale: Tensor, noise: Tensor | None,
    grad: Tensor, soft: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    dx, dkeys, dbias = torch.empty_like(x), torch.zeros_like(keys), x.new_zeros(len(keys))
    dvalues = torch.zeros_like(values) if soft else values.new_empty(0)
    with full_precision(x.device.type):  # a loop that calls backward under autocast means no less
        for rows, logits in _chunks(x, keys, bias, scale, noise):
            p = logits.softmax(1)
            if soft:
                dvalues.addmm_(p.t(), grad[rows])
            by_p = torch.mm(grad[rows], values.t(), out=logits)
            mean = torch.linalg.vecdot(p, by_p)
            _add_gradients(p.mul_(by_p.sub_(mean[:, None])), x, keys, scale, rows, dx, dkeys, dbias)
    return dx, dkeys, dbias, dvalues


@_soft_values_backward.register_fake
def _(
    x: Tensor, keys: Tensor, bias: Any, values: Tensor, scale: Tensor, noise: Any, grad: Tensor, soft: bool
) -> tuple[Tensor, ...]:
    dvalues = torch.empty_like(values) if soft else values.new_empty(0)
    return torch.empty_like(x), torch.empty_like(keys), keys.new_empty(keys.shape[0]), dvalues


@torch.library.custom_op("mmtok::soft_entropies", mutates_args=())
def _soft_entropies(
    x: Tensor, keys: Tensor, bias: Tensor | None, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    entropy, mass = x.new_empty(len(x)), x.new_zeros(len(keys))
    for rows, logits in _chunks(x, keys, bias, scale, None):
        log_p = logits.log_softmax(1)
        p = torch.exp(log_p, out=logits)
        entropy[rows] = -torch.linalg.vecdot(p, log_p)
        mass.addmv_(p.t(), weight[rows])
    return entropy, mass


@_soft_entropies.register_fake
def _(x: Tensor, keys: Tensor, bias: Any, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0]), x.new_empty(keys.shape[0])


@torch.library.custom_op("mmtok::soft_entropies_backward", mutates_args=())
def _soft_entropies_backward(
    x: Tensor, keys: Tensor, bias: Tensor | None, weight: Tensor, scale: Tensor, by_entropy: Tensor, by_mass: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dkeys, dbias = torch.empty_like(x), torch.zeros_like(keys), x.new_zeros(len(keys))
    with full_precision(x.device.type):
        for rows, logits in _chunks(x, keys, bias, scale, None):
            log_p = logits.log_softmax(1)
            p = torch.exp(log_p, out=logits)
            entropy = -torch.linalg.vecdot(p, log_p)
            # By a logit: of the entropy -p (log p + H), of the mass p (its gradient - the mean of its gradient).
            by_p = log_p.add_(entropy[:, None]).mul_(-by_entropy[rows, None])
            by_p.addcmul_(weight[rows, None], by_mass - (p @ by_mass)[:, None])
            _add_gradients(p.mul_(by_p), x, keys, scale, rows, dx, dkeys, dbias)
    return dx, dkeys, dbias


@_soft_entropies_backward.register_fake
def _(
    x: Tensor, keys: Tensor, bias: Any, weight: Tensor, scale: Tensor, by_entropy: Tensor, by_mass: Tensor
) -> tuple[Tensor, ...]:
    return torch.empty_like(x), torch.empty_like(keys), keys.new_empty(keys.shape[0])


def _add_gradients(
    by_logits: Tensor, x: Tensor, keys: Tensor, scale: Tensor, rows: slice, dx: Tensor, dkeys: Tensor, dbias: Tensor
) -> None:
    by_scores = by_logits.mul_(scale)
    torch.mm(by_scores, keys, out=dx[rows])
    dkeys.addmm_(by_scores.t(), x[rows])
    dbias += by_scores.sum(0)
