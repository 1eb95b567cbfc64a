"""`mmtok.load`: a trained tokenizer from where training left it."""

from __future__ import annotations

from pathlib import Path

import torch

from mmtok.tokenizers.base import Tokenizer


def load(path: str | Path, *, device: str | torch.device = "cpu", raw: bool = False) -> Tokenizer:
    """The tokenizer of a run: its last checkpoint, averaged weights where there are any.

    Args:
        path: a run directory, or one of its checkpoints.
        device: where to put it.
        raw: take the weights as trained instead of their average.

    Returns:
        A tokenizer in eval mode: `.encode(x) -> Codes`, `.decode(codes) -> x`, `.spec`.

    Raises:
        ValueError: there is no usable checkpoint; says what is there.
    """
    from mmtok.config import parse_config
    from mmtok.tokenizers.base import build_tokenizer
    from mmtok.training.checkpoint import LAST, read_checkpoint

    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no {path}. Give a run directory or a checkpoint.")
    file = path / "checkpoints" / LAST if path.is_dir() else path
    checkpoint = read_checkpoint(file)
    config = parse_config(checkpoint["mmtok"]["config"])
    with torch.device("meta"):
        tokenizer = build_tokenizer(config.tokenizer, config.quantizer)
    state = checkpoint["state_dict"]
    prefix = "tokenizer." if raw or not config.optim.ema else "ema."
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    tokenizer.load_state_dict(weights, assign=True)
    return tokenizer.requires_grad_(False).eval().to(device)
