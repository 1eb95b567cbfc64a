"""What every task of `mmtok evaluate` settles before minutes of measuring: where to compute, and where figures go."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.cli.subject import Subject
    from mmtok.evaluation.heldout import HeldOut


def place_of(args: argparse.Namespace, target: Path) -> tuple[Path, str]:
    """The file of figures, `--out` or else `target`, and the device.

    Raises:
        OSError: figures cannot be kept there; the command says why.
        ValueError: a folder is named for a file, or nothing can be computed on the device.
    """
    import torch

    from mmtok.loading import check_device

    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    target = args.out or target
    check_writable(target)
    return target, device


def file_of(args: argparse.Namespace, subject: Subject, held_out: HeldOut, prefix: str = "") -> Path:
    """Where figures of a set go by default: other weights of the run have files of their own."""
    stem = (
        prefix
        + held_out.name
        + ("-raw" if args.raw else "")
        + ("" if subject.step is None else f"-step-{subject.step}")
    )
    return subject.folder / "evaluation" / f"{stem}.json"


def check_writable(target: Path) -> None:
    """Find out whether figures can be kept: room for 64 KiB beside the target.

    Raises:
        OSError: they cannot; the command says why.
    """
    if target.is_dir():
        raise ValueError(f"--out={target} is a folder. Name a file: {target / 'evaluation.json'}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as file:
        file.write(bytes(1 << 16))
        file.flush()
