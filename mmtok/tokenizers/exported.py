"""A tokenizer as the `config.json` of an export describes it: whole, or without one of its halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmtok.tokenizers.base import Tokenizer, build_tokenizer

PARTS: dict[str, tuple[str, str]] = {"encoder": ("decoder", "decode"), "decoder": ("encoder", "encode")}
"""Half that an export may consist of -> the half it lacks, and what it therefore cannot do."""


_LOOKED_FOR = ("parametrizations", "weight")
"""What `optimize` looks for in any module, to find that most have none."""


class Absent(nn.Module):
    """Stands where an encoder or a decoder was left out, and says so to who needs it."""

    def __init__(self, half: str, task: str) -> None:
        super().__init__()
        self.lacking, self.task = half, task

    def forward(self, *_: Any, **__: Any) -> Tensor:
        raise self._refusal()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or name in _LOOKED_FOR:
                raise
        # No AttributeError: a property of the networks that asks for this would seem to be missing itself.
        raise self._refusal()

    def _refusal(self) -> ValueError:
        return ValueError(
            f"this tokenizer was exported without its {self.lacking} and cannot {self.task}. Use a whole bundle."
        )


def build_exported(config: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that a `config.json` describes, with weights yet to be loaded.

    Args:
        config: `tokenizer` and `quantizer` as in a recipe; `part`, where a half is left out; `fingerprint`, where the
            weights are those of another tokenizer in another form.

    Raises:
        ValueError: a name or a field is unknown, or a value makes no sense.
    """
    part = config.get("part") or "both"
    if part != "both" and part not in PARTS:
        raise ValueError(f"part='{part}' must be both, {' or '.join(PARTS)}.")
    tokenizer = build_tokenizer(config["tokenizer"], config["quantizer"])
    if part != "both":
        leave_out(tokenizer, part)
    tokenizer._origin = config.get("fingerprint") or ""
    return tokenizer


def require_whole(tokenizer: Tokenizer, why: str) -> None:
    """Refuse a tokenizer without one of its halves before anything is begun that needs both.

    Raises:
        ValueError: says `why`, and which half is lacking.
    """
    networks = getattr(tokenizer, "networks", None)  # what was fitted has none, and is whole
    for half in (networks.encoder, networks.decoder) if networks is not None else ():
        if isinstance(half, Absent):
            raise ValueError(f"{why}: it was exported without its {half.lacking}. Use a whole bundle.")


def leave_out(tokenizer: Tokenizer, part: str) -> None:
    """Keep only one half, "encoder" or "decoder", and the quantizer, which both need."""
    half, task = PARTS[part]
    setattr(tokenizer.networks, half, Absent(half, task))
