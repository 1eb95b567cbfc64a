"""Quantizers against `vector-quantize-pytorch`, and against the least a search can cost.

`python -m benchmarks.quantizers` prints a table of the whole registry; `--quick` takes few rounds, `--compiled` runs
both sides through `torch.compile` besides, `--out FILE` writes JSON, `--device cuda` takes a GPU's sizes. A step is
forward, backward of values and losses, and the update of the codebook. The sides (`benchmarks.quantizer_sides`) run in
turns in one process, so that a machine shared with others slows all; ratios are medians over rounds. The peer's
own defaults stand beside. Extra memory is the peak above what was held before one step, each in a process of its own on
a CPU. The bound is one biased matmul with argmin in the best of four chunk sizes, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.quantizer_sides import CPU, CUDA, SIDES, Case
from benchmarks.tables import table

CHUNKS = (16, 64, 256, 1024)
"""Rows of a chunk that the bound may choose from."""
COMPILED = " compiled"
"""Behind a side's name."""
Step = Callable[[Tensor], Any]


def build(case: Case, side: str, device: str) -> Step:
    """One training step of a side on latents (B, T, D): "ours", "peer", "default", any of them " compiled"."""
    torch.manual_seed(0)
    plain = side.removesuffix(COMPILED)
    module = SIDES[case.kind].build(case, plain).to(device).train()
    forward = torch.compile(module) if side != plain else module

    def step(z: Tensor) -> None:
        z.grad = None
        module.zero_grad(set_to_none=True)
        side_of_grid = math.isqrt(z.shape[1])
        out = forward(z, grid=(side_of_grid, side_of_grid)) if plain == "ours" else forward(z)
        if plain == "ours":
            values, loss = out.values, sum(out.losses.values(), out.values.new_zeros(()))
        else:
            values, loss = out[0], out[2].sum() if len(out) > 2 else out[0].new_zeros(())
        (values.sum() + loss).backward()
        if plain == "ours":
            module.update(out.stats)

    return step


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


def run_case(case: Case, rounds: int, device: str, threads: int, compiled: bool = False) -> dict[str, Any]:
    """Times, ratios and memory of a case, and whether its goals are met."""
    torch.compiler.reset()  # else later cases meet the limit of graphs that earlier ones filled, and run uncompiled
    z, sides = latents(case, device), SIDES[case.kind]
    names = ["ours"] if sides.peer is None else ["ours", "peer", "default"]
    names += [name + COMPILED for name in names[:2]] if compiled else []
    steps: dict[str, Step] = {side: build(case, side, device) for side in names}
    if sides.searches:
        bounds = {rows: bound(case, rows, device) for rows in CHUNKS}
        fastest = min(bounds, key=lambda rows: min(seconds(bounds[rows], z) for _ in range(3)))
        steps["bound"] = bounds[fastest]
    times = in_turns(steps, z, rounds, device)
    memory = {side: in_own_process(case, side, device, threads) for side in names[:2] if side in ("ours", "peer")}
    return {"case": asdict(case), "about": sides.about} | judged(case, times, memory)


def in_turns(steps: dict[str, Step], z: Tensor, rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each side, a step of each in a round; of those that cannot be run, infinity."""
    broken = set()
    for side, step in steps.items():
        try:
            step(z)
            step(z)  # a compiled one is compiled again where it finds that something changes
        except torch.cuda.OutOfMemoryError:
            broken.add(side)
        except Exception as error:
            if not side.endswith(COMPILED):
                raise
            print(f"{side} fails: {str(error).splitlines()[0]}", file=sys.stderr)
            broken.add(side)
    # Short steps are at the mercy of whatever else runs: they get as many rounds as fit in a few seconds.
    kept = [step for side, step in steps.items() if side not in broken]
    longest = max(seconds(step, z) for step in kept) if device == "cpu" else 0.1
    times: dict[str, list[float]] = {side: [] for side in steps}
    for _ in range(max(rounds, min(50, int(2 / longest)))):
        for side, step in steps.items():
            times[side].append(math.inf if side in broken else seconds(step, z))
    return times


def judged(case: Case, times: dict[str, list[float]], memory: dict[str, float | None]) -> dict[str, Any]:
    """Ratios of medians over rounds, and which goals are met."""

    def ratio(above: str, below: str) -> float | None:
        if above not in times or below not in times:
            return None
        return median(a / b for a, b in zip(times[above], times[below], strict=True))

    result: dict[str, Any] = {"seconds": {side: median(took) for side, took in times.items()}, "extra_memory": memory}
    result["times_faster"] = ratio("peer", "ours")
    result["times_faster_than_default"] = ratio("default", "ours")
    result["times_faster_compiled"] = ratio("peer" + COMPILED, "ours" + COMPILED)
    result["times_bound"] = ratio("ours", "bound")
    ours, peers = memory["ours"], memory.get("peer")
    result["memory_share"] = ours / max(peers, 1) if ours is not None and peers is not None else None
    faster, compiled = result["times_faster"], result["times_faster_compiled"]
    result["pass"] = {
        "speed": case.speed is None or faster is None or faster >= case.speed,
        "compiled": case.speed is None or compiled is None or compiled >= 1,
        "bound": case.bound is None or result["times_bound"] <= case.bound,
        # A peer that does not fit is given no share.
        "memory": case.memory is None or ours is None or peers is None or result["memory_share"] <= case.memory,
    }
    return result


def show(results: list[dict[str, Any]]) -> str:
    """The table."""

    def goal(result: dict[str, Any], name: str, value: float | None, wanted: float | None, relation: str) -> str:
        if value is None:
            return "-"
        text = f"{value:.3g}x"
        return f"{text} ({relation}{wanted:g}: {'pass' if result['pass'][name] else 'FAIL'})" if wanted else text

    def megabytes(memory: dict[str, float | None], side: str) -> str:
        if side not in memory:
            return "-"
        value = memory[side]
        return "does not fit" if value is None else f"{value / 2**20:.0f} MB"

    rows = []
    for result in results:
        case, took = Case(**result["case"]), result["seconds"]
        wanted = 1.0 if case.speed else None
        rows.append(
            [
                case,
                *(f"{took[side] * 1e3:.1f}" if side in took else "-" for side in ("ours", "peer")),
                goal(result, "speed", result["times_faster"], case.speed, ">="),
                goal(result, "compiled", result["times_faster_compiled"], wanted, ">="),
                goal(result, "default", result["times_faster_than_default"], None, ""),
                goal(result, "bound", result["times_bound"], case.bound, "<="),
                *(megabytes(result["extra_memory"], side) for side in ("ours", "peer")),
                goal(result, "memory", result["memory_share"], case.memory, "<="),
            ]
        )
    header = ["case", "ours ms", "peer ms", "faster", "compiled", "than its defaults", "of the bound", "memory"]
    return table([*header, "peer's", "share"], rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of every side")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument("--compiled", action="store_true", help="both sides through torch.compile besides: minutes")
    parser.add_argument("--only", default="", help="cases whose name holds this, as 'vq' or 'D=8'")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    cases = [case for case in (CUDA if args.device == "cuda" else CPU) if args.only in str(case)]
    if not cases:
        parser.error(f"--only {args.only} fits no case: {', '.join(map(str, CPU))}")
    results = []
    for case in cases:
        results.append(run_case(case, 2 if args.quick else args.rounds, args.device, args.threads, args.compiled))
        print(show(results[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    print(show(results))
    if args.out:
        machine = {"torch": torch.__version__, "threads": args.threads, "cores": os.cpu_count()}
        machine["processor"] = torch.cuda.get_device_name() if args.device == "cuda" else platform.machine()
        args.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    return 0 if all(all(result["pass"].values()) for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
