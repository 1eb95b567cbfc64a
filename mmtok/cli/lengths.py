"""The task `lengths` of `mmtok evaluate`: what codes cut short are worth, and what each item needs for a quality."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from mmtok.cli import pictures
from mmtok.cli.subject import kind_of, kinds, subject_of

if TYPE_CHECKING:
    from mmtok.evaluation.lengths import Lengths

OPTIONS: dict[str, dict[str, Any]] = {
    "--image-size": pictures.OPTIONS["--image-size"],
    "--lengths": {
        "metavar": "N,...", "help": "numbers of positions or levels that all items keep (default: powers of two, all)",
    },
    "--targets": {"metavar": "DB,...", "help": "qualities that are searched for: PSNR of pictures, else SNR"},
}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    import torch

    from mmtok.cli.reconstruct import check_writable
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.evaluation.lengths import measure_lengths, unpadded
    from mmtok.evaluation.report import finite
    from mmtok.loading import check_device
    from mmtok.tokenizers.budget import ladder_of, require_axis, steps_of

    subject = subject_of(args)
    tokenizer, kind = subject.tokenizer, kinds()[kind_of(subject.tokenizer)]
    axis, most = require_axis(tokenizer), steps_of(tokenizer)
    lengths = numbers(args.lengths, "--lengths", int) or ladder_of(most)
    if wrong := [length for length in lengths if not 1 <= length <= most]:
        raise ValueError(f"--lengths={wrong[0]}: this tokenizer has 1 to {most} {axis}.")
    targets = numbers(args.targets, "--targets", float)
    held_out = HeldOut(kind.adjust(subject.data, args), shards=args.shards, samples=args.samples)
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    step = "" if subject.step is None else f"-step-{subject.step}"
    target = args.out or subject.folder / "evaluation" / f"lengths-{held_out.name}{step}.json"
    check_writable(target)
    found = measure_lengths(tokenizer.to(device), unpadded(held_out, device), lengths, targets)
    notes = {"run": str(args.run), "step": subject.step, "weights": subject.weights, **held_out.notes()}
    target.write_text(json.dumps(finite(found.to_dict()) | {"choices": notes}, indent=2) + "\n", encoding="utf-8")
    print(tables(found))
    print(f"wrote {target}")
    return 0


def numbers(text: str | None, option: str, kind: type) -> list[Any]:
    """What "8,16" says.

    Raises:
        ValueError: it is no list of numbers.
    """
    try:
        return [kind(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ValueError(f"{option}={text} must be numbers with commas between them, as 8,16,32.") from error


def tables(found: Lengths) -> str:
    """Both answers for a terminal."""
    from mmtok.evaluation.lengths import rows_by_length, rows_of_search

    lines = [f"{found.samples:,} items, codes cut along their {found.axis}", *rows_by_length(found)]
    return "\n".join(lines + (["", *rows_of_search(found)] if found.searched else []))
