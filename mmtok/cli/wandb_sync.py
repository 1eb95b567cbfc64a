"""Upload what W&B has written offline, the oldest piece first.

  mmtok wandb-sync runs/image/vqvae/3f2a91c0de
  mmtok wandb-sync runs/*/*/* --dry-run

Every start of a run leaves a piece; a piece that is uploaded is not uploaded again. One that another process still
writes is left for later.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmtok.training.wandb_pieces import Piece


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument("--dry-run", action="store_true", help="say what would be uploaded, in which order")


def run(args: argparse.Namespace) -> int:
    from mmtok.training.logs import need
    from mmtok.training.wandb_sink import wandb_logged_in

    need("wandb", "wandb-sync", "copy the run directory to a machine that has it")
    for run_dir in args.runs:
        if not run_dir.is_dir():
            raise ValueError(f"there is no run directory {run_dir}.")
    if not args.dry_run and not wandb_logged_in():
        raise ValueError(
            "nobody is logged in to W&B on this machine. Run 'wandb login' or set WANDB_API_KEY; --dry-run shows what "
            "there is."
        )
    failed = [run_dir for run_dir in args.runs if not _sync(run_dir, args.dry_run)]
    if failed:
        print(
            f"mmtok: not all of {', '.join(map(str, failed))} was uploaded. The same command goes on from there.",
            file=sys.stderr,
        )
    return 1 if failed else 0


def _sync(run_dir: Path, dry: bool) -> bool:
    """Upload one run; whether all of it is there now."""
    from mmtok.training.lease import read_lease
    from mmtok.training.wandb_pieces import read_pieces

    pieces = read_pieces(run_dir)
    holder = read_lease(run_dir)
    pieces, left = ready(pieces, in_use=holder is not None and holder.alive())
    if left:
        print(f"{run_dir}: {left}")
    todo = waiting(pieces)
    print(f"{run_dir}: {len(todo)} of {len(pieces)} pieces to upload")
    for number, piece in enumerate(todo, 1):
        line = f"  {number}  {piece.file.parent.name}  {len(piece.rows):,} rows, {piece.steps}"
        print(line if piece.ended else f"{line}, cut off", flush=True)
        if not dry and not upload(piece):
            return False
    return True


def ready(pieces: Sequence[Piece], in_use: bool) -> tuple[list[Piece], str]:
    """The pieces that nobody writes to any more, and a line about those that somebody does."""
    if not in_use or not pieces:
        return list(pieces), ""
    if pieces[-1].online:
        # Its process counts the server's rows for itself: what is put in between would be written over.
        return [], "it is training and logs online. Upload earlier pieces when it is done."
    return [*pieces[:-1]], "it is training; its newest piece is left for later."


def waiting(pieces: Sequence[Piece]) -> list[Piece]:
    """What is to be uploaded, the oldest first.

    An online piece is the copy of what was sent at once. Only the last may be sent again: a later one has gone on from
    what the server had, and logged the rest itself.
    """
    settled = max((i for i, piece in enumerate(pieces) if piece.rows and piece.online), default=0)
    after = any(piece.marker.exists() for piece in pieces[settled + 1 :])
    return [
        piece
        for i, piece in enumerate(pieces)
        if (piece.rows or piece.artifacts)
        and not piece.marker.exists()
        and (not piece.online or (i == settled and not after))
    ]


def upload(piece: Piece) -> bool:
    """Let W&B's own command upload a piece; whether it did. What it says goes to the terminal."""
    if not piece.ended and piece.whole < piece.file.stat().st_size:
        os.truncate(piece.file, piece.whole)  # half a record, at which W&B's command would stop with an error
    command = [sys.executable, "-m", "wandb", "sync", "--include-online", str(piece.file.parent)]
    done = subprocess.run(command, stdout=sys.stderr, check=False)
    # The command ends with 0 whatever has happened; this file it makes when all is uploaded.
    if done.returncode or not piece.marker.exists():
        return False
    piece.uploaded()
    return True
