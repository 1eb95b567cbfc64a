"""Measures on a GPU, most valuable first, and keeps what it found: JSON and pictures below docs/gpu/.

    python -m benchmarks.gpu --pictures BSDS500.zip --sounds debian:asterisk [--minutes 25] [--only step,nccl] [--again]
    python -m benchmarks.gpu --dry --out /tmp/dry          # every section, in sizes for a CPU

Each section runs in a process of its own and writes one file; a section whose file is there is not measured again. One
that would not fit into what is left of the time is left for the next call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.sections import SECTIONS
from benchmarks.gpu.setting import Setting


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/gpu"), help="folder of the results")
    parser.add_argument("--pictures", help="folder, zip or name to train on (default: the committed fixture)")
    parser.add_argument(
        "--sounds", nargs="+", default=[], metavar="SOUNDS",
        help="shard sets, folders, zips, .deb files or names to train on (default: data/speech, else the fixture)",
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=25.0, help="in all")
    parser.add_argument("--only", help="comma-separated sections")
    parser.add_argument("--again", action="store_true", help="measure again what is there")
    parser.add_argument("--dry", action="store_true", help="CPU sizes: shows that every section runs, and nothing else")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.section:
        setting = Setting(args.out, args.dry, args.pictures, tuple(args.sounds), args.minutes)
        result = SECTIONS[args.section].measure(setting)
        (args.out / f"{args.section}.json").write_text(json.dumps({"dry": args.dry, **result}, indent=1) + "\n")
        return 0
    if not args.dry and not cuda():
        print("there is no CUDA device here. --dry runs every section in sizes for a CPU.", file=sys.stderr)
        return 1
    return run(args)


def run(args: argparse.Namespace) -> int:
    """Every section that is wanted, missing and fits."""
    started, failed = time.monotonic(), 0
    names = args.only.split(",") if args.only else list(SECTIONS)
    unknown = sorted(set(names) - set(SECTIONS))
    if unknown:
        print(f"no section {', '.join(unknown)}. Known: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    for name in names:
        left = args.minutes - (time.monotonic() - started) / 60
        if (args.out / f"{name}.json").is_file() and not args.again:
            print(f"{name}: is there", flush=True)
            continue
        if left < SECTIONS[name].minutes and not args.dry:
            print(f"{name}: left for the next call ({left:.1f} minutes remain, it takes {SECTIONS[name].minutes:g})")
            continue
        words = [sys.executable, "-m", "benchmarks.gpu", "--section", name, "--out", str(args.out)]
        words += [*(["--dry"] if args.dry else []), *(["--pictures", args.pictures] if args.pictures else [])]
        words += ["--sounds", *args.sounds] if args.sounds else []
        begun = time.monotonic()
        done = subprocess.run([*words, "--minutes", f"{left:.2f}"], check=False)
        failed += done.returncode != 0
        outcome = f"failed with status {done.returncode}" if done.returncode else "done"
        print(f"{name}: {outcome} after {time.monotonic() - begun:.0f} s", flush=True)
    return min(failed, 1)


def cuda() -> bool:
    """Whether there is a CUDA device."""
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
