"""What callers give a quantizer, checked where that is free: shapes always, values on a CPU and outside a compiler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from math import isfinite
from typing import Any

import torch
from torch import Tensor


def readable(x: Tensor) -> bool:
    """Whether values may be looked at: a GPU would have to be waited for, and a compiled program cannot branch. What
    has a gradient is in a training, whose own guard looks, and whose steps read nothing from a device.
    """
    return (
        x.device.type == "cpu"
        and not x.requires_grad
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def check_fields(config: Any) -> None:
    """Refuse what no quantizer can have: no channels, numbers that are not finite, weights below 0.

    Raises:
        ValueError: names the field, and what would be right.
    """
    if config.dim < 1:
        raise ValueError(f"dim={config.dim} must be 1 or more: the channels of the latents.")
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not isfinite(value):
            raise ValueError(f"{field.name}={value} is no finite number.")
        if isinstance(value, int | float) and field.name.endswith("_weight") and value < 0:
            raise ValueError(f"{field.name}={value} would reward what it is to hold down. Use 0 or more.")


def check_latents(z: Tensor, dim: int) -> None:
    """Refuse latents of another shape than (B, T, dim).

    Raises:
        ValueError: they have one.
    """
    if z.ndim != 3 or z.shape[2] != dim:
        raise ValueError(
            f"latents must be (B, T, D) with D = dim = {dim}, got {tuple(z.shape)}. Pictures (B, D, H, W) become so by "
            "z.flatten(2).transpose(1, 2)."
        )


def check_each(name: str, value: Tensor, z: Tensor, least: int, most: int) -> None:
    """Refuse a hint (`levels`, `digits`) that is not one number an item, in `least` .. `most`.

    Raises:
        ValueError: it is not.
    """
    if value.shape != z.shape[:1] or value.is_floating_point():
        raise ValueError(
            f"{name} must be whole numbers ({z.shape[0]},), one an item, or an int for all, got {value.dtype} "
            f"{tuple(value.shape)}."
        )
    if value.numel() and readable(value) and not z.requires_grad:
        low, high = (int(end) for end in value.aminmax())
        if low < least or high > most:
            wrong = low if low < least else high
            raise ValueError(f"{name}={wrong}, but this quantizer has {name} to keep from {least} to {most}.")


def check_ids(ids: Tensor, sizes: Sequence[int]) -> None:
    """Refuse ids that are not (B, L, T) whole numbers of these codebooks, or -1 where there is no code.

    Raises:
        ValueError: names the level, the id and the codebook.
    """
    if ids.ndim != 3 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(
            f"ids must be whole numbers (B, L, T), a row a level, got {ids.dtype} {tuple(ids.shape)}. Ids (B, T) of "
            "one level become so by ids[:, None]."
        )
    if ids.shape[1] > len(sizes):
        raise ValueError(
            f"ids have {ids.shape[1]} levels, but this quantizer has {len(sizes)}. Were they made by another one?"
        )
    if not (ids.numel() and readable(ids)):
        return
    for level, (size, low, high) in enumerate(zip(sizes, ids.amin((0, 2)).tolist(), ids.amax((0, 2)).tolist())):  # noqa: B905, fewer levels may be given
        if low < -1 or high >= size:
            raise ValueError(
                f"ids of level {level} hold {low if low < -1 else high}, outside 0 .. {size - 1} of its codebook (-1 "
                "where there is no code). Were they made by another quantizer?"
            )
