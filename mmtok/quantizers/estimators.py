"""What gradient latents get for the codes that stand in for them. Values are the codes, bit by bit."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Gradient = Literal["straight", "rotate"]
_TINY = 1e-6
"""Norm below which a latent or a code has no direction."""


def estimate(gradient: Gradient, x: Tensor, codes: Tensor) -> Tensor:
    """Latents x (..., D) and their codes (..., D) -> the codes' values, with a gradient to the latents alone."""
    carrier = rotated(x, codes.detach()) if gradient == "rotate" else x
    return codes.detach() + (carrier - carrier.detach())  # this order adds an exact zero: values equal the decoded ones


def rotated(x: Tensor, codes: Tensor) -> Tensor:
    """The rotation trick: latents x (..., D), turned and stretched onto their codes (..., D) by a constant map.

    Fifty et al. 2024, "Restructuring Vector Quantization with the Rotation Trick" (arXiv 2410.06424): the map is
    |q| / |e| (I - 2 r r^T + 2 q^ e^T) with r the direction of e^ + q^, so that the gradient keeps its angle to the
    code.
    Both the rotation and the stretch are constants. Where a latent or a code has no length there is no angle, and the
    gradient goes straight through (image.md trap 9).
    """
    e = x.detach()
    norm_e, norm_q = e.norm(dim=-1, keepdim=True), codes.norm(dim=-1, keepdim=True)
    unit_e, unit_q = e / norm_e.clamp(min=_TINY), codes / norm_q.clamp(min=_TINY)
    middle = F.normalize(unit_e + unit_q, dim=-1, eps=_TINY)
    turned = x - 2 * (x * middle).sum(-1, keepdim=True) * middle + 2 * (x * unit_e).sum(-1, keepdim=True) * unit_q
    stretch = norm_q / norm_e.clamp(min=_TINY)
    return (turned * stretch).where((norm_e > _TINY) & (norm_q > _TINY), x)
