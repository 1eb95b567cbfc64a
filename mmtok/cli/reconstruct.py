"""The task `reconstruct` of `mmtok evaluate`: how much of held-out signals comes back, by the kind of signals."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from mmtok.cli.subject import Job, kind_of, kinds, subject_of

OPTIONS = {name: words for module in kinds().values() for name, words in module.OPTIONS.items()}


def run(args: argparse.Namespace) -> int:
    import torch

    from mmtok.cli.options import refuse_others
    from mmtok.evaluation.heldout import HeldOut
    from mmtok.loading import check_device

    subject = subject_of(args)
    name, modules = kind_of(subject.tokenizer), kinds()
    owners = {kind: module.OPTIONS for kind, module in modules.items()}
    refuse_others(args, owners, name, f"{args.run} is for {name}")
    kind = modules[name]
    data = kind.adjust(subject.data, args)
    held_out = HeldOut(data, shards=args.shards, samples=args.samples, examples=kind.EXAMPLES)
    device = args.device if args.device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(device)
    notes = {"run": str(args.run), "step": subject.step, "weights": subject.weights, **held_out.notes()}
    stem = held_out.name + ("-raw" if args.raw else "") + ("" if subject.step is None else f"-step-{subject.step}")
    target = args.out or subject.folder / "evaluation" / f"{stem}.json"
    check_writable(target)
    kind.measure(Job(subject, held_out, args, notes, target, device))
    print(f"wrote {target}")
    return 0


def check_writable(target: Path) -> None:
    """Find out before minutes of measuring whether their figures can be kept: room for 64 KiB beside the target.

    Raises:
        OSError: they cannot; the command says why.
    """
    if target.is_dir():
        raise ValueError(f"--out={target} is a folder. Name a file: {target / 'evaluation.json'}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=target.parent) as file:
        file.write(bytes(1 << 16))
        file.flush()
