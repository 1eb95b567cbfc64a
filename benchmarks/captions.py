"""Which caption belongs to a picture, asked of its codes: before and after they learned from captions.

    python -m benchmarks.captions DATA [--out runs/captions] [--weights 0,1] [--steps 300] [--seeds 2]

DATA holds `train` and `val` of pictures with `minilm.npy` beside each (see configs/image/contrastive_tuxpaint.yaml). A
ridge from the mean of an item's quantized values, or from how often it has each code, to the caption's embedding is
fitted on training pairs, the same for all arms, and asked which of all held-out captions is nearest. Goes on where it
was stopped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.tables import table
from mmtok.compare.arms import Arm
from mmtok.compare.cells import Cell
from mmtok.compare.jobs import run_cells
from mmtok.compare.plan import Comparison
from mmtok.compare.preflight import check
from mmtok.compare.results import gather
from mmtok.compare.subject import Subject
from mmtok.evaluation.heldout import Signals
from mmtok.evaluation.probe import histograms
from mmtok.tokenizers.base import Tokenizer, evaluating

RIDGE = 1.0
"""Added to the diagonal of the Gram matrix of standardised features, whose own is 1."""


@torch.inference_mode()
def read(tokenizer: Tokenizer, batches: Iterable[Mapping[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean values (N, D), ids (N, L, T) and captions (N, F) of a set."""
    means, ids, captions = [], [], []
    with evaluating(tokenizer):
        for batch in batches:
            latents = tokenizer.embed(batch["x"])
            out = tokenizer.quantizer(latents.z, latents.mask, grid=latents.grid)
            means.append(out.values.mean(1))
            ids.append(out.ids)
            captions.append(batch["teacher"].float())
    return torch.cat(means), torch.cat(ids), torch.cat(captions)


def guesses(x: Tensor, y: Tensor, unseen: Tensor) -> Tensor:
    """Captions (M, F) that a ridge from features (N, D) to captions (N, F) makes of others (M, D)."""
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    x, unseen = (x - mean) / scale, (unseen - mean) / scale
    inner = x @ x.T / x.shape[1]
    weight = torch.linalg.solve(inner + RIDGE * torch.eye(len(x)), y - y.mean(0))
    return unseen @ x.T / x.shape[1] @ weight + y.mean(0)


def recall(guess: Tensor, captions: Tensor, first: int = 1) -> float:
    """Share of items whose own caption is among the first; an equal caption of another item counts as its own."""
    near = F.normalize(guess, dim=1) @ F.normalize(captions, dim=1).T
    same = F.normalize(captions, dim=1) @ F.normalize(captions, dim=1).T > 1 - 1e-4
    found = near.topk(min(first, len(near)), dim=1).indices
    return float(same.gather(1, found).any(1).float().mean())


def chance(captions: Tensor) -> float:
    """Of naming one of N at random."""
    same = F.normalize(captions, dim=1) @ F.normalize(captions, dim=1).T > 1 - 1e-4
    return float(same.float().mean())


def judged(folder: Path, cell: Cell) -> dict[str, float]:
    """Recalls of one cell, held out and on what it was trained on."""
    subject = Subject.of(cell, cell.config(folder), folder)
    seen = read(subject.tokenizer, Signals(subject.training(100_000)))
    held = read(subject.tokenizer, Signals(subject.held_out()))
    bags = histograms(torch.cat([seen[1], held[1]])).split([len(seen[1]), len(held[1])])
    found = {"captions": float(len(held[2])), "chance": chance(held[2])}
    for name, x, unseen in (("values", seen[0], held[0]), ("codes", *bags)):
        guess = guesses(x, seen[2], unseen)
        found |= {f"{name} @1": recall(guess, held[2]), f"{name} @10": recall(guess, held[2], 10)}
    count = len(held[2])  # as many of those it was trained on, to be compared
    found["trained on, values @1"] = recall(guesses(seen[0], seen[2], seen[0][:count]), seen[2][:count])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of train and val, with minilm.npy beside each picture")
    parser.add_argument("--out", type=Path, default=Path("runs/captions"))
    parser.add_argument("--weights", default="0,1", help="of the contrastive term")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    data = args.data.absolute()
    words = [
        f"data.shards={data / 'train'}", f"data.val_shards={data / 'val'}", f"trainer.max_steps={args.steps}",
        "trainer.val_every=0",
    ]  # fmt: skip
    arms = [Arm(f"weight={weight}", (f"loss.meaning.weight={weight}",)) for weight in args.weights.split(",")]
    comparison = Comparison.make(
        args.out.absolute(), ["image/contrastive_tuxpaint", "logger/quiet"], words, arms, seeds=args.seeds,
        measures=("reconstruction",), options={"reconstruction.features": "none"},
    )  # fmt: skip
    if todo := comparison.todo():
        check(comparison)
        comparison.save()
        run_cells(todo, 1)
    psnr = gather(comparison).means["psnr"]
    rows: list[list[object]] = []
    header = ["mean of seeds", "psnr"]
    for arm in arms:
        found = [judged(place, cell) for place, cell in comparison.cells if cell.arm.name == arm.name]
        header = ["mean of seeds", "psnr", *found[0]]
        values = [fmean(one[name] for one in found) for name in found[0]]
        rows.append([arm.name, f"{psnr[arm.name].mean:.2f}", f"{values[0]:.0f}", *(f"{one:.1%}" for one in values[1:])])
    print(table(header, rows))


if __name__ == "__main__":
    main()
