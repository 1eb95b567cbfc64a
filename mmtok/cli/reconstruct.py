"""The task `reconstruct` of `mmtok evaluate`: how much of held-out signals comes back, by the kind of signals."""

from __future__ import annotations

import argparse

from mmtok.cli.measuring import file_of, place_of
from mmtok.cli.subject import Job, kind_of, kinds, subject_of

OPTIONS = {name: words for module in kinds().values() for name, words in module.OPTIONS.items()}


def run(args: argparse.Namespace) -> int:
    from mmtok.cli.options import refuse_others
    from mmtok.evaluation.heldout import HeldOut

    subject = subject_of(args)
    name, modules = kind_of(subject.tokenizer), kinds()
    owners = {kind: module.OPTIONS for kind, module in modules.items()}
    refuse_others(args, owners, name, f"{args.run} is for {name}")
    kind = modules[name]
    data = kind.adjust(subject.data, args)
    held_out = HeldOut(data, shards=args.shards, samples=args.samples, examples=kind.EXAMPLES)
    target, device = place_of(args, file_of(args, subject, held_out))
    notes = {"run": str(args.run), "step": subject.step, "weights": subject.weights, **held_out.notes()}
    kind.measure(Job(subject, held_out, args, notes, target, device))
    print(f"wrote {target}")
    return 0
