"""The task `lengths` of `mmtok evaluate`: what codes cut short are worth, and what each item needs for a quality."""

from __future__ import annotations

import argparse
import dataclasses
import json
from math import isfinite
from typing import TYPE_CHECKING, Any

from mmtok.cli import pictures
from mmtok.cli.measuring import file_of, place_of
from mmtok.cli.subject import kind_of, kinds, subject_of

if TYPE_CHECKING:
    from mmtok.cli.subject import Subject
    from mmtok.evaluation.lengths import Lengths

OPTIONS: dict[str, dict[str, Any]] = {
    "--image-size": pictures.OPTIONS["--image-size"],
    "--lengths": {
        "metavar": "N,...", "help": "numbers of positions or levels that all items keep (default: powers of two, all)",
    },
    "--targets": {"metavar": "DB,...", "help": "qualities that are searched for: PSNR of pictures, else SNR"},
    "--fit": {
        "type": int, "metavar": "N", "help": "first fit a predictor of lengths to N training items, beside the run, "
        "for --budget psnr=30,predicted",
    },
    "--confidence": {
        "type": float, "metavar": "SHARE", "help": "items that should be as good as the target, by the predictor "
        "(default 0.8)",
    },
}  # fmt: skip


def run(args: argparse.Namespace) -> int:
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.evaluation.lengths import measure_digits, measure_lengths, unpadded
    from mmtok.evaluation.report import finite
    from mmtok.tokenizers.axis import ladder_of, require_axis, steps_of

    subject = subject_of(args)
    tokenizer, kind = subject.tokenizer, kinds()[kind_of(subject.tokenizer)]
    by_digits = tokenizer.axis is None and tokenizer.quantizer.drops_digits
    axis, most = ("digits", tokenizer.quantizer.digits) if by_digits else (require_axis(tokenizer), steps_of(tokenizer))
    lengths = numbers(args.lengths, "--lengths", int) or (list(range(1, most + 1)) if by_digits else ladder_of(most))
    if wrong := [length for length in lengths if not 1 <= length <= most]:
        raise ValueError(f"--lengths={wrong[0]}: this tokenizer has 1 to {most} {axis}.")
    targets = numbers(args.targets, "--targets", float)
    if wrong := [target for target in targets if not isfinite(target)]:
        raise ValueError(f"--targets={wrong[0]} is no quality. Give numbers of dB, such as --targets 20,24.")
    if by_digits and (targets or args.fit is not None):
        raise ValueError("all items of a vocabulary have codes of as many digits. Leave --targets and --fit out.")
    if args.confidence is not None:
        if not 0 <= args.confidence <= 1:
            raise ValueError(f"--confidence={args.confidence} is a share of items, in [0, 1].")
        if not targets:
            raise ValueError("--confidence is of what a predictor does for --targets. Give some, or leave it out.")
    held_out = HeldOut(kind.adjust(subject.data, args), shards=args.shards, samples=args.samples)
    target, device = place_of(args, file_of(args, subject, held_out, "lengths-"))
    tokenizer.to(device)
    if args.fit is not None:
        print(fit(subject, args, device))
    how = {} if args.confidence is None else {"confidence": args.confidence}
    signals = unpadded(held_out, device)
    if by_digits:
        found = measure_digits(tokenizer, signals, lengths)
    else:
        found = measure_lengths(tokenizer, signals, lengths, targets, **how)
    notes = {"run": str(args.run), "step": subject.step, "weights": subject.weights, **held_out.notes()}
    target.write_text(json.dumps(finite(found.to_dict()) | {"choices": notes}, indent=2) + "\n", encoding="utf-8")
    print(tables(found))
    print(f"wrote {target}")
    return 0


def fit(subject: Subject, args: argparse.Namespace, device: str) -> str:
    """Fit a predictor to training items, write it beside the run, and say how well it does.

    Raises:
        ValueError: there is no run, whose training items are known and in whose directory it can stand.
    """
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.evaluation.lengths import unpadded
    from mmtok.evaluation.predictor import LEAST, fit_predictor
    from mmtok.tokenizers.predictor import FILE, attach

    if args.fit < LEAST:
        raise ValueError(f"--fit={args.fit}: so few items fit no predictor of lengths. Give {LEAST} or more.")
    if args.raw:
        raise ValueError("--fit is of the averaged weights, which mmtok encode uses. Leave --raw out.")
    if subject.config is None:
        raise ValueError(f"--fit needs training items, and {args.run} is no run. Fit it there.")
    kind = kinds()[kind_of(subject.tokenizer)]
    shards = subject.data.shards
    sets = shards if isinstance(shards, str) else tuple(one.path for one in shards)
    data = dataclasses.replace(kind.adjust(subject.data, args), val_shards=sets)
    fitted = fit_predictor(subject.tokenizer, unpadded(HeldOut(data, samples=args.fit), device))
    path = subject.folder / FILE
    fitted.predictor.save(path)
    attach(subject.tokenizer, subject.folder)
    share = f"{fitted.explained:.0%} of the variance of {fitted.predictor.quality}"
    return f"wrote {path}: predicts {share} of items it was not fitted to, among {fitted.items:,} training items\n"


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
    from mmtok.evaluation.length_tables import rows_by_length, rows_of_prediction, rows_of_search

    lines = [f"{found.samples:,} items, codes cut along their {found.axis}", *rows_by_length(found)]
    for more in (rows_of_search(found) if found.searched else [], rows_of_prediction(found)):
        lines += ["", *more] if more else []
    return "\n".join(lines)
