"""What codecs of sound cost: real-time factors beside other implementations, latency of streams, parts of a training.

    python -m benchmarks.audio --out FOLDER [--only speed|latency|training] [--peer-python PATH] [--compile]

Speed is at equal architecture and published size, all levels: EnCodec 24 kHz and DAC 16 kHz here and in transformers
with the same random weights, and in `encodec` and `descript-audio-codec`, which have an environment of their own.
All sides are processes of one thread and take turns in every round, so that a machine shared with others slows all of
them; ratios are of times of one round, and times are those that the thread had a core. Rounds are kept in FOLDER as
they end, and the next call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from benchmarks.audio_parts import LATENCY, TRAINED, frame_times, training_parts
from benchmarks.tables import table

PACKAGES = {"encodec_24k": "encodec", "dac_16k": "descript-audio-codec"}
VENV = (
    "uv venv peers && uv pip install --python peers/bin/python torch==2.11.0 torchaudio==2.11.0 encodec "
    "descript-audio-codec, and give --peer-python peers/bin/python"
)
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}
"""glibc then gives freed memory to the next layer, and not back to the system, which hands it out anew page by page."""
OURS = ("mmtok as loaded", "mmtok folded", "mmtok optimize()", "mmtok optimize(compile=True)")


class Side:
    """One implementation of a codec in a process of its own, waiting between its turns.

    Ours as well: what else a process holds decides how its allocator treats the memory of each layer.
    """

    def __init__(self, python: str, name: str, codec: str, samples: int, args: argparse.Namespace) -> None:
        threads = args.threads
        own = name in PACKAGES.values()
        worker = [str(Path(__file__).with_name("audio_worker.py"))] if own else ["-m", "benchmarks.audio_worker"]
        command = [python, *worker, name, codec, str(samples), str(threads)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        if own:
            environment.pop("PYTHONPATH", None)
        if args.keep_memory:
            environment |= KEEP
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.facts = self._answer()

    def _answer(self) -> Any:
        stream: IO[str] | None = self.process.stdout
        assert stream is not None
        assert self.process.stderr is not None
        for line in stream:
            if line.startswith(("{", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")):  # packages print, too
                return json.loads(line)
        raise RuntimeError((self.process.stderr.read().strip().splitlines() or ["it ended without a word"])[-1])

    def seconds(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def open_sides(
    codec: str, samples: int, args: argparse.Namespace, absent: dict[str, str]
) -> tuple[dict[str, Side], dict[str, Any]]:
    """All that can be measured, and what the package says of itself; adds to `absent` what cannot."""
    names = [*(OURS if args.compile else OURS[:-1]), "transformers"]
    sides = {name: Side(sys.executable, name, codec, samples, args) for name in names}
    package = PACKAGES[codec]
    if not args.peer_python:
        absent[package] = "no --peer-python"
        return sides, {}
    try:
        sides[package] = Side(args.peer_python, package, codec, samples, args)
    except (OSError, RuntimeError) as error:
        absent[package] = str(error)
        return sides, {}
    return sides, sides[package].facts


def measure_speed(codec: str, args: argparse.Namespace, absent: dict[str, str]) -> dict[str, Any]:
    """Rounds of all sides of a codec: those on file, and as many more as are asked for."""
    path = args.out / f"speed_{codec}{'_kept' if args.keep_memory else ''}.json"
    rate = 24000 if codec == "encodec_24k" else 16000
    samples = round(args.seconds * rate) // 320 * 320
    found = json.loads(path.read_text()) if path.exists() else {"rounds": []}
    if len(found["rounds"]) >= args.rounds:
        return found
    sides, package = open_sides(codec, samples, args, absent)
    facts = {"codec": codec, "seconds": samples / rate, "sides": list(sides), "peer": package}
    if {key: found.get(key) for key in facts} != facts:  # of other sides: rounds that cannot be joined
        found = facts | {"rounds": []}
    names = list(sides)
    while (number := len(found["rounds"])) < args.rounds:
        turn = number % len(names)
        order = names[turn:] + names[:turn]  # whoever is first meets what was before
        times = {name: [sides[name].seconds("encode"), sides[name].seconds("decode")] for name in order}
        found["rounds"].append({"load": os.getloadavg()[0], "times": times})
        path.write_text(json.dumps(found, indent=1) + "\n")
    for side in sides.values():
        side.close()
    return found


def speed_rows(found: dict[str, Any]) -> list[list[str]]:
    """A row for each side: times real time, and ours against the peers, encode / decode."""
    rounds, rows = found["rounds"], []
    peers = [name for name in found["sides"] if name not in OURS]
    for name in found["sides"]:
        factors = [statistics.median(found["seconds"] / r["times"][name][i] for r in rounds) for i in (0, 1)]
        row = [f"{found['codec']}: {name}", f"{factors[0]:.1f} / {factors[1]:.1f}"]
        for peer in ("transformers", PACKAGES[found["codec"]]):
            if name in peers or peer not in peers:
                row.append("-")
                continue
            row.append(" / ".join(spread([r["times"][peer][i] / r["times"][name][i] for r in rounds]) for i in (0, 1)))
        rows.append(row)
    return rows


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def kept(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is on file, else what is measured now and put there."""
    if not path.exists():
        path.write_text(json.dumps({"load": os.getloadavg()[0], **measure()}, indent=1) + "\n")
    return json.loads(path.read_text())


def latency_rows(found: dict[str, Any], recipe: str) -> list[list[str]]:
    """A row for each form: milliseconds of a frame, encoded and decoded."""
    rows, frame = [], found["frame"]
    for name, times in found["times"].items():
        both = sorted(times)
        last = both[min(int(0.99 * len(both)), len(both) - 1)]
        middle = statistics.median(both)
        first = [f"{1000 * value:.1f}" for value in (frame, middle, last)]
        rows.append([f"{recipe}: {name}", *first, f"{frame / middle:.2f}", f"{found['load']:.1f}"])
    return rows


def training_rows(found: dict[str, Any]) -> list[list[str]]:
    middle = {name: statistics.median(times) for name, times in found["times"].items()}
    whole = sum(middle.values())
    rows = [[name, f"{1000 * taken:.0f}", f"{taken / whole:.0%}"] for name, taken in middle.items()]
    return [*rows, ["together", f"{1000 * whole:.0f}", f"{found['seconds'] / whole:.2f} x real time"]]


def machine(args: argparse.Namespace) -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, torch {torch.__version__}, {args.threads} thread(s)"


def report(args: argparse.Namespace) -> str:
    """All that was asked for, as Markdown."""
    parts, absent = [machine(args)], dict[str, str]()
    if "speed" in args.only:
        found = [measure_speed(codec, args, absent) for codec in PACKAGES]
        loads = [r["load"] for one in found for r in one["rounds"]]
        rows = [row for one in found for row in speed_rows(one)]
        header = ["codec: side", "x real time", "against transformers", "against its package"]
        text = f"encode / decode of {args.seconds:g} s, {args.rounds} rounds, load {min(loads):.1f} to {max(loads):.1f}"
        parts += [text, table(header, rows)]
        parts += [f"{one['peer']['name']} with torch {one['peer']['torch']}" for one in found if one.get("peer")]
    parts += [f"absent: {package} ({why}). {VENV}" for package, why in absent.items()]
    if "latency" in args.only:
        rows = []
        for recipe in LATENCY:
            path = args.out / f"latency_{recipe.replace('/', '_')}.json"
            rows += latency_rows(kept(path, lambda r=recipe: frame_times(r, args.frames)), recipe)  # type: ignore[misc]
        header = ["a frame, encoded and decoded", "lasts, ms", "median, ms", "p99, ms", "x real time", "load"]
        parts.append(table(header, rows))
    if "training" in args.only:
        found = [kept(args.out / "training.json", lambda: training_parts(TRAINED, args.batch, args.steps))]
        text = f"{TRAINED}, {args.batch} x 1 s, median of {args.steps} updates, load {found[0]['load']:.1f}"
        parts += [text, table(["part of an update", "ms", "share"], training_rows(found[0]))]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures; remove a file to repeat it")
    parser.add_argument("--only", nargs="+", choices=["speed", "latency", "training"])
    parser.add_argument("--peer-python", help="of an environment with encodec and descript-audio-codec")
    parser.add_argument("--compile", action="store_true", help="time the compiled copy, too")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of the clip")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=400, help="of a stream, for latency")
    parser.add_argument("--batch", type=int, default=2, help="seconds of sound of an update, for training")
    parser.add_argument("--steps", type=int, default=5, help="updates, for training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep-memory", action="store_true", help="in all processes, let glibc keep freed memory")
    args = parser.parse_args()
    args.only = args.only or ["speed", "latency", "training"]
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    print(report(args))


if __name__ == "__main__":
    main()
