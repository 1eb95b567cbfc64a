"""What a merged vocabulary costs: time and memory to load it, to read names, and to hold a model to its grammar.

    python -m benchmarks.vocab [--base DIR] [--codes 8192 65536] [--repeat 3]

Each vocabulary is of one picture tokenizer, merged into the base (by default a byte-level BPE of 16k tokens, trained on
the standard library's sources) and loaded in a process of its own, one thread, which has imported transformers before.
The first row is the base alone. Codes beyond 100,000 have no names: those vocabularies load like the base. Memory is
what loading adds, while it lasts (peak) and after it (held).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.tables import table
from mmtok.codes import Codes
from mmtok.export.token_spec import TokenSpec
from mmtok.export.vocab import merge
from mmtok.export.vocab_map import Vocabulary

SIDE = 32
"""Of the grid of a picture: 1,024 codes, as a 512 px picture at f16 has."""
USE = (f"text of {SIDE * SIDE:,} codes -> ids", "to_ids", "from_ids", "processor a step", "prefix_fn a step")
HEADER = ("codes", "names", "tokenizer.json", "load, CPU", "held", "peak", "merge", *USE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="folder of a text tokenizer")
    parser.add_argument("--codes", type=int, nargs="+", default=[8192, 65536, 131072])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        base = args.base or train_base(Path(folder) / "base")
        rows = [row("the base", base, 0.0, args.repeat)]
        for codes in args.codes:
            bundle, out = Path(folder) / f"bundle{codes}", Path(folder) / f"vocab{codes}"
            bundle.mkdir()
            spec = TokenSpec("image", (codes,), "img", downsample=16, length="grid", header=True, rows=True)
            (bundle / "token_spec.json").write_text(spec.to_json())
            begin = time.perf_counter()
            merge(base, [bundle], out)
            rows.append(row(f"{codes:,}", out, time.perf_counter() - begin, args.repeat))
    print(table(HEADER, rows))


def train_base(folder: Path) -> Path:
    """A byte-level BPE of 16k tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=16384, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sources(), trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def sources() -> Iterator[str]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")


def row(name: str, folder: Path, merged: float, repeat: int) -> list[str]:
    """One line of the table: the middle of several processes."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-m", "benchmarks.vocab", "--measure", str(folder)]
    runs = []
    for _ in range(repeat):
        out = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
        runs.append(json.loads(out.splitlines()[-1]))
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    size = (folder / "tokenizer.json").stat().st_size / 1e6
    cells = [name, f"{middle['names']:,.0f}", f"{size:.1f} MB", f"{middle['load']:.2f} s"]
    cells += [f"{middle['held']:.0f} MB", f"{middle['peak']:.0f} MB"]
    timed = [f"{middle[key]:.2f} ms" if key in middle else "" for key in ("text", "to", "from", "processor", "prefix")]
    return [*cells, f"{merged:.1f} s" if merged else "", *timed]


def measure(folder: Path) -> dict[str, float]:
    """In a process of its own: CPU seconds and resident MB of loading; milliseconds of use."""
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    before, begin = resident("VmRSS"), time.process_time()
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    figures: dict[str, float] = {"load": time.process_time() - begin, "names": len(tokenizer)}
    figures |= {"held": resident("VmRSS") - before, "peak": resident("VmHWM") - before}
    if (folder / "vocab_map.json").is_file():
        figures |= use(Vocabulary.read(folder), tokenizer)
    return figures


def resident(what: str) -> float:
    """Megabytes of this process. `getrusage` would give the parent's peak, which a child inherits."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


def use(vocabulary: Vocabulary, tokenizer: Any) -> dict[str, float]:
    """Milliseconds of one picture, and of one step of generating it at its middle."""
    spec = vocabulary.specs[0]
    positions = SIDE * SIDE
    ids = torch.randint(spec.codebook_sizes[0], (1, 1, positions), generator=torch.Generator().manual_seed(0))
    codes = Codes(ids, torch.tensor([positions]), torch.tensor([[512, 512]]), (SIDE, SIDE))
    item = vocabulary.to_ids(codes, spec)[0]
    half, scores = item[None, : len(item) // 2], torch.zeros(1, vocabulary.size)
    processor, allowed = vocabulary.logits_processor(spec), vocabulary.prefix_allowed_tokens_fn(spec)
    work: dict[str, Callable[[], Any]] = {
        "to": lambda: vocabulary.to_ids(codes, spec),
        "from": lambda: vocabulary.from_ids([item], spec),
        "processor": lambda: processor(half, scores),
        "prefix": lambda: allowed(0, half[0]),
    }
    if vocabulary.strings:
        text = "".join(spec.token(code) for code in ids.flatten().tolist())
        work["text"] = lambda: tokenizer(text)
    return {name: milliseconds(call) for name, call in work.items()}


def milliseconds(call: Callable[[], Any], repeat: int = 20) -> float:
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    main()
