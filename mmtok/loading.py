"""`mmtok.load`: a trained tokenizer from where training or an import left it. Needs torch, and nothing of training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch

import mmtok.networks
import mmtok.quantizers
import mmtok.tokenizers  # noqa: F401, these packages register their names
from mmtok.export.folder import is_model, read_model
from mmtok.registry import load_plugins
from mmtok.seal import broken_seal
from mmtok.tokenizers.base import Tokenizer, build_tokenizer
from mmtok.tokenizers.predictor import attach

LAST = "last.ckpt"


def load(
    path: str | Path, *, device: str | torch.device = "cpu", raw: bool = False, digits: int | None = None
) -> Tokenizer:
    """The tokenizer of a run (its last checkpoint, averaged weights where there are any), or an imported one.

    Where the last checkpoint is damaged, the newest whole one is taken, with a warning that names both.

    Args:
        path: a run directory, or one of its checkpoints; what `mmtok import` wrote; or the folder of a model of
            transformers or diffusers that is a tokenizer here (`mmtok.export.formats`).
        device: where to put it.
        raw: take the weights as trained instead of their average; imported ones have no other.
        digits: keep the leading digits of codes alone, a smaller vocabulary, where the quantizer's have some.

    Returns:
        A tokenizer in eval mode: `.encode(x) -> Codes`, `.decode(codes) -> x`, `.spec`.

    Raises:
        ValueError: there is no usable checkpoint, and what there is; a model that cannot be expressed; no such device.
    """
    check_device(device)
    if is_model(path):
        tokenizer = attach(read_model(path), Path(path))
    else:
        found = open_checkpoint(path)
        tokenizer = attach(tokenizer_of(found.content, raw=raw), home_of(found.path))
    return (tokenizer if digits is None else tokenizer.prefix(digits)).to(device)


def home_of(checkpoint: Path) -> Path:
    """The run directory of a checkpoint, or else its folder."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def check_device(device: str | torch.device) -> None:
    """Refuse a device that this machine or this build of torch lacks.

    Raises:
        ValueError: nothing can be computed there.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0].split(". ")[0].rstrip(".")
        raise ValueError(f"device '{device}' cannot be used: {reason}. Use 'cpu', or see mmtok doctor.") from error


def tokenizer_of(checkpoint: dict[str, Any], *, raw: bool = False) -> Tokenizer:
    """The tokenizer in a checkpoint."""
    settings = checkpoint["mmtok"]["config"]
    load_plugins(settings["plugins"])
    # Not on the meta device, which would be quicker: what a plugin keeps outside its state would stay there.
    tokenizer = build_tokenizer(settings["tokenizer"], settings.get("quantizer"))
    prefix = "tokenizer." if raw or not settings.get("optim", {}).get("ema") else "ema."
    state = checkpoint["state_dict"]
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    tokenizer.load_state_dict(weights, assign=True)
    return tokenizer.requires_grad_(False).eval()


def checkpoint_path(path: str | Path) -> Path:
    """The checkpoint a path means: itself, or the last one of a run directory."""
    path = Path(path)
    if not path.exists():
        raise ValueError(f"there is no {path}. Give a run directory or a checkpoint.")
    return path / "checkpoints" / LAST if path.is_dir() else path


class Found(NamedTuple):
    """A checkpoint that can be read."""

    path: Path
    content: dict[str, Any]
    damaged: tuple[str, ...] = ()
    """What was wrong with each newer one."""


def open_checkpoint(path: str | Path) -> Found:
    """What a path means, read: a checkpoint, or the newest whole one of a run directory, with a warning where that is
    not the last one.

    Raises:
        ValueError: there is none, or none that is whole.
    """
    file = checkpoint_path(path)
    if file == Path(path):
        return Found(file, read_checkpoint(file))
    found = newest_whole(file.parent)
    if found is None and not (Path(path) / "config.yaml").exists() and not file.parent.exists():
        raise ValueError(f"{path} is a folder, but no run, import or model: it has no config.yaml and no config.json.")
    if found is None:
        raise ValueError(f"there is no checkpoint {file}. The run may not have reached its first one.")
    if found.damaged:
        warnings.warn(f"{' '.join(found.damaged)} Taking {found.path} instead.", stacklevel=2)
    return found


def newest_whole(folder: Path) -> Found | None:
    """The newest checkpoint of a folder that can be read; None where there is none at all.

    Raises:
        ValueError: there are some, and all of them are damaged.
    """
    files = [folder / LAST, *reversed(kept_checkpoints(folder))]
    damaged: list[str] = []
    for file in files:
        if not file.exists():
            continue
        try:
            return Found(file, read_checkpoint(file), tuple(damaged))
        except ValueError as error:
            damaged.append(str(error))
    if not damaged:
        return None
    raise ValueError(
        f"{' '.join(damaged)} No whole checkpoint is left in {folder}. Bring one back from a copy, or start anew: "
        f"rm -r {folder}"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's plain containers and tensors, on the CPU; nothing in it is executed, its checksum is verified.

    Raises:
        ValueError: the file is no checkpoint of mmtok, or damaged.
    """
    try:
        if broken_seal(path):
            raise ValueError(f"{path} is damaged: its checksum does not fit its content.")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise ValueError(f"there is no checkpoint {path}. The run may not have reached its first one.") from error
    except (ValueError, PermissionError):
        raise
    except Exception as error:  # torch raises whatever its unpickler meets in a damaged file
        raise ValueError(f"{path} is damaged or no checkpoint.") from error
    if not isinstance(checkpoint, dict) or "mmtok" not in checkpoint:
        raise ValueError(f"{path} is a checkpoint, but not one of mmtok.")
    return checkpoint


def kept_checkpoints(folder: Path) -> list[Path]:
    """The `step-N.ckpt` of a folder, oldest first."""
    return sorted(folder.glob("step-*.ckpt"), key=step_of)


def step_of(path: Path) -> int:
    """The update in a kept checkpoint's name."""
    return int(path.stem.removeprefix("step-"))
