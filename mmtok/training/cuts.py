"""What validation sees of codes that are cut short."""

from __future__ import annotations

import torch
from torch import Tensor

from mmtok.tokenizers.axis import few_lengths, require_axis, steps_of
from mmtok.tokenizers.base import Tokenizer
from mmtok.tokenizers.latents import Reconstruction


def cuts(tokenizer: Tokenizer, out: Reconstruction, x: Tensor) -> dict[str, Tensor]:
    """What codes of a few lengths give back, by axis and length ("positions/8"), where training cuts them; the whole
    last.

    Args:
        tokenizer: what is validated.
        out: its pass over the whole of each item.
        x: the signals (B, C, ...).
    """
    most: dict[str, int] = {}
    if tokenizer.cut_in_training:
        most[require_axis(tokenizer)] = steps_of(tokenizer)
    if tokenizer.quantizer.drops_digits:
        most["digits"] = tokenizer.quantizer.digits
    found: dict[str, Tensor] = {}
    for axis, whole in most.items():
        for length in few_lengths(whole)[:-1]:
            hint = {axis: torch.full(x.shape[:1], length, device=x.device)}
            found[f"{axis}/{length}"] = tokenizer.reconstruct(out.latents, tuple(x.shape[2:]), **hint).x
        found[f"{axis}/{whole}"] = out.x
    return {name: tokenizer.compared(y) for name, y in found.items()}
