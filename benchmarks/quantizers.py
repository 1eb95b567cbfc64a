"""Quantizers against `vector-quantize-pytorch`, and against the least a search can cost.

`python -m benchmarks.quantizers` prints a table; `--quick` takes few rounds, `--out FILE` writes JSON, `--device cuda`
takes the sizes of a GPU. A step is forward, backward of values and losses, and the update of the codebook. The sides
run in turns in one process, so that a machine shared with others slows all of them; ratios are medians over rounds.
Both have the same options (codes of full dimension, EMA 0.99, no l2, no rotation trick, no restarts, commitment 0.25);
the peer's own defaults stand beside. Extra memory is the peak above what was held before one step, each in a process
of its own on a CPU. The bound is one biased matmul with argmin in the best of four chunk sizes, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from benchmarks.tables import table
from mmtok.quantizers import build_quantizer

CHUNKS = (16, 64, 256, 1024)
"""Rows of a chunk that the bound may choose from."""


@dataclass(frozen=True)
class Case:
    kind: str
    """vq, rq, fsq or lfq."""
    rows: int
    """Latents, N."""
    codes: int
    """Codes a level, K."""
    dim: int
    """Channels of a latent, D."""
    depth: int = 1
    """Levels."""
    speed: float = 1.0
    """Goal: times faster than the peer, at least."""
    bound: float | None = None
    """Goal: times slower than the bound, at most."""
    memory: float | None = None
    """Goal: share of the peer's extra memory, at most."""

    def __str__(self) -> str:
        levels = f"{self.depth}x" if self.depth > 1 else ""
        return f"{self.kind} N={self.rows} K={levels}{self.codes} D={self.dim}"


CPU = (
    Case("vq", 4096, 1024, 64, speed=2.5),
    Case("vq", 4096, 16384, 8, speed=12, bound=1.5, memory=0.1),
    Case("vq", 4096, 16384, 256, speed=4, bound=1.5, memory=0.1),
    Case("rq", 4096, 1024, 64, depth=8, speed=3),
    Case("fsq", 4096, 1000, 64),
    Case("lfq", 4096, 2**14, 64, speed=30, memory=0.1),
)
CUDA = (
    *CPU,
    Case("vq", 8192, 16384, 8, speed=5, bound=1.5, memory=0.1),
    Case("vq", 8192, 16384, 256, speed=3, bound=1.5, memory=0.1),
    Case("vq", 32768, 16384, 32, speed=5, bound=1.5, memory=0.1),
    Case("vq", 8192, 2**18, 16, speed=5, bound=1.5, memory=0.1),
    Case("lfq", 8192, 2**18, 64, speed=30, memory=0.1),
)
Step = Callable[[Tensor], Any]


def build(case: Case, side: str, device: str) -> Step:
    """One training step of a side ("ours", "peer", "default" for the peer as it comes) on latents (B, T, D)."""
    torch.manual_seed(0)
    module = (_ours(case) if side == "ours" else _peer(case, matched=side == "peer")).to(device).train()

    def step(z: Tensor) -> None:
        z.grad = None
        module.zero_grad(set_to_none=True)
        out = module(z)
        if side == "ours":
            values, loss = out.values, sum(out.losses.values(), out.values.new_zeros(()))
        else:
            values, loss = out[0], out[2].sum() if len(out) > 2 else out[0].new_zeros(())
        (values.sum() + loss).backward()
        if side == "ours":
            module.update(out.stats)

    return step


def _ours(case: Case) -> nn.Module:
    fields: dict[str, Any] = {"vq": {"codebook_size": case.codes}, "fsq": {}, "lfq": {"entropy_weight": 0.1}}.get(
        case.kind, {"codebook_size": case.codes, "depth": case.depth}
    )
    if case.kind == "lfq":
        fields["bits"] = case.codes.bit_length() - 1
    return build_quantizer(case.kind, dim=case.dim, **fields)


def _peer(case: Case, matched: bool) -> nn.Module:
    options: dict[str, Any] = {}
    if matched:
        options = {"codebook_dim": case.dim, "decay": 0.99, "rotation_trick": False, "commitment_weight": 0.25}
        options |= {"threshold_ema_dead_code": 0, "kmeans_init": False, "use_cosine_sim": False}
    if case.kind == "vq":
        return VectorQuantize(dim=case.dim, codebook_size=case.codes, **options)
    if case.kind == "rq":
        return ResidualVQ(dim=case.dim, codebook_size=case.codes, num_quantizers=case.depth, **options)
    if case.kind == "fsq":
        return FSQ([8, 5, 5, 5], dim=case.dim)
    return LFQ(dim=case.dim, codebook_size=case.codes, entropy_loss_weight=0.1)


def bound(case: Case, rows: int, device: str) -> Step:
    """The least a search costs: a biased matmul and an argmin a chunk, for every level."""
    codes = torch.randn(case.codes, case.dim, device=device)
    bias = codes.square().sum(1) / 2

    @torch.no_grad()
    def step(z: Tensor) -> None:
        for _ in range(case.depth):
            for chunk in z.flatten(0, 1).split(rows):
                torch.addmm(bias, chunk, codes.T, alpha=-1).argmin(1)

    return step


def latents(case: Case, device: str) -> Tensor:
    """Standard normal latents (4, N / 4, D)."""
    torch.manual_seed(1)
    return torch.randn(4, case.rows // 4, case.dim, device=device, requires_grad=True)


def seconds(step: Step, z: Tensor) -> float:
    """Wall time of one step, the device's work included."""
    wait = torch.cuda.synchronize if z.is_cuda else lambda: None
    wait()
    start = time.perf_counter()
    step(z)
    wait()
    return time.perf_counter() - start


def extra_memory(case: Case, side: str, device: str, threads: int) -> float | None:
    """Peak bytes above what is held before one step; None where the step does not fit."""
    torch.set_num_threads(threads)
    step, z = build(case, side, device), latents(case, device)
    step(z[:, :1].detach().requires_grad_())  # what a first call loads is not the step's
    z.grad = torch.zeros_like(z)  # nor is the gradient that the caller keeps
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        try:
            step(z)
        except torch.cuda.OutOfMemoryError:
            return None
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is resident now
    before = resident("VmRSS")
    step(z)
    return resident("VmHWM") - before


def resident(field: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line for line in status if line.startswith(field)).split()[1])


def in_own_process(case: Case, side: str, device: str, threads: int) -> float | None:
    """`extra_memory` in a fresh process, where nothing that ran before is still resident."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(extra_memory, case, side, device, threads).result()


def run_case(case: Case, rounds: int, device: str, threads: int) -> dict[str, Any]:
    """Times, ratios and memory of a case, and whether its goals are met."""
    z = latents(case, device)
    steps: dict[str, Step] = {side: build(case, side, device) for side in ("ours", "peer", "default")}
    if case.kind in ("vq", "rq"):
        bounds = {rows: bound(case, rows, device) for rows in CHUNKS}
        fastest = min(bounds, key=lambda rows: min(seconds(bounds[rows], z) for _ in range(3)))
        steps["bound"] = bounds[fastest]
    times: dict[str, list[float]] = {side: [] for side in steps}
    # Short steps are at the mercy of whatever else runs: they get as many rounds as fit in a few seconds.
    longest = max(seconds(step, z) for step in steps.values()) if device == "cpu" else 0.1
    rounds = max(rounds, min(50, int(2 / longest)))
    for turn in range(rounds + 1):
        for side, step in steps.items():
            try:
                elapsed = seconds(step, z)
            except torch.cuda.OutOfMemoryError:
                elapsed = float("inf")
            if turn:  # the first turn warms up
                times[side].append(elapsed)

    def ratio(above: str, below: str) -> float:
        return median(a / b for a, b in zip(times[above], times[below], strict=True))

    memory = {side: in_own_process(case, side, device, threads) for side in ("ours", "peer")}
    result: dict[str, Any] = {"case": asdict(case), "seconds": {side: median(took) for side, took in times.items()}}
    result["times_faster"] = ratio("peer", "ours")
    result["times_faster_than_default"] = ratio("default", "ours")
    result["times_bound"] = ratio("ours", "bound") if "bound" in times else None
    result["extra_memory"] = memory
    ours, peers = memory["ours"], memory["peer"]
    result["memory_share"] = None if ours is None else 0.0 if peers is None else ours / max(peers, 1)
    result["pass"] = {
        "speed": result["times_faster"] >= case.speed,
        "bound": case.bound is None or result["times_bound"] <= case.bound,
        "memory": case.memory is None or (result["memory_share"] or 0.0) <= case.memory,
    }
    return result


def show(results: list[dict[str, Any]]) -> str:
    """The table."""

    def goal(result: dict[str, Any], name: str, value: float | None, wanted: float | None, relation: str) -> str:
        if value is None:
            return "-"
        text = f"{value:.3g}x"
        return f"{text} ({relation}{wanted:g}: {'pass' if result['pass'][name] else 'FAIL'})" if wanted else text

    def megabytes(value: float | None) -> str:
        return "does not fit" if value is None else f"{value / 2**20:.0f} MB"

    rows = []
    for result in results:
        case, took = Case(**result["case"]), result["seconds"]
        rows.append(
            [
                case,
                *(f"{took[side] * 1e3:.1f}" for side in ("ours", "peer")),
                goal(result, "speed", result["times_faster"], case.speed, ">="),
                f"{result['times_faster_than_default']:.3g}x",
                goal(result, "bound", result["times_bound"], case.bound, "<="),
                *(megabytes(result["extra_memory"][side]) for side in ("ours", "peer")),
                goal(result, "memory", result["memory_share"], case.memory, "<="),
            ]
        )
    header = ["case", "ours ms", "peer ms", "faster", "than its defaults", "of the bound", "memory", "peer's", "share"]
    return table(header, rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--only", default="", help="cases whose name holds this, as 'vq' or 'D=8'")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    cases = [case for case in (CUDA if args.device == "cuda" else CPU) if args.only in str(case)]
    if not cases:
        parser.error(f"--only {args.only} fits no case: {', '.join(map(str, CPU))}")
    results = []
    for case in cases:
        results.append(run_case(case, 2 if args.quick else args.rounds, args.device, args.threads))
        print(show(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(show(results))
    if args.out:
        machine = {"torch": torch.__version__, "threads": args.threads, "cores": os.cpu_count()}
        machine["processor"] = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
        args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    return 0 if all(all(result["pass"].values()) for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
