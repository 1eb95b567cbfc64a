"""`make demo-llm`: pictures, sounds and text in one small language model, by the same commands you would type.

From Tux Paint's stamps: tokenizers of pictures and of spoken names are trained and exported, one vocabulary is made of
both and a text tokenizer, everything is turned into ids, and a Llama is trained from nothing by the stock `Trainer`. It
then paints and speaks what a caption says, and captions what it sees and hears, on things that it has never met.

Each step is done once; the same command goes on after the last that was finished.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = {"image": "images", "audio": "sounds"}
"""Tokenizer -> the shard sets it is for."""
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    image_steps: int = 2000
    audio_steps: int = 1800
    text_ids: int = 512
    hidden: int = 160
    layers: int = 4
    lm_steps: int = 800
    image: tuple[str, ...] = ()
    """Further settings of the image tokenizer."""
    audio: tuple[str, ...] = ()
    psnr: float | None = None
    """dB that each picture's row of tokens is long enough for; None makes grids of 16 tokens of all."""


ROWS = Sizes(image_steps=700)
"""A transformer takes about three times as long for an update as the convolutions of grids."""
QUICK = Sizes(
    image_steps=4,
    audio_steps=4,
    text_ids=300,
    hidden=32,
    layers=1,
    lm_steps=4,
    image=("tokenizer.encoder.channels=8", "quantizer.codebook_size=16", "data.batch_size=4", "data.workers=0"),
    audio=("tokenizer.encoder.channels=2", "quantizer.codebook_size=16", "data.batch_size=4", "data.workers=0"),
)
"""For `--quick`: nothing is learned, and every step is taken."""


def main() -> int:
    """Every step, each skipped where it was done before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/llm"), help="where everything goes")
    parser.add_argument("--deb", type=Path, help="tuxpaint-stamps-default as a file; by default it is fetched")
    parser.add_argument("--threads", type=int, default=2, help="cores to use")
    parser.add_argument(
        "--quick", action="store_true", help="see that every step works, in a minute; nothing is learned"
    )
    parser.add_argument("--only", choices=list(NAMES), help="leave out the other modality")
    parser.add_argument(
        "--psnr", type=float, metavar="DB", help="pictures as rows of tokens, each as long as this quality takes"
    )
    args = parser.parse_args()
    sizes = QUICK if args.quick else Sizes() if args.psnr is None else ROWS
    sizes = replace(sizes, psnr=args.psnr)
    make(args.out, args.deb, args.threads, sizes, (args.only,) if args.only else tuple(NAMES))
    return 0


def make(out: Path, deb: Path | None, threads: int, sizes: Sizes, names: tuple[str, ...] = tuple(NAMES)) -> None:
    """All steps, in order, for the tokenizers in `names`."""
    sys.path.insert(0, str(HERE.parent))  # what the demos share
    from data import write_shards
    from generate import write_samples
    from model import Shape, train
    from report import write_report
    from steps import mmtok
    from text_base import write_base

    out.mkdir(parents=True, exist_ok=True)
    step(out, "data", write_shards, out / "data", deb)
    recipes = {
        "image": ("image" if sizes.psnr is None else "row", sizes.image_steps, sizes.image),
        "audio": ("audio", sizes.audio_steps, sizes.audio),
    }
    budgets = {"image": [] if sizes.psnr is None else ["--budget", f"psnr={sizes.psnr:g}"], "audio": []}
    for name in names:
        recipe, steps, more = recipes[name]
        where = [f"data.shards={out}/data/{NAMES[name]}/train", f"run_dir={out}/{name}"]
        length = [f"trainer.max_steps={steps}", f"trainer.threads={threads}"]
        step(out, f"train-{name}", mmtok, "train", f"{HERE}/{recipe}.yaml", *where, *length, *more)
        step(out, f"export-{name}", mmtok, "export", f"{out}/{name}", f"{out}/bundles/{name}", "--overwrite")
    bundles = [f"{out}/bundles/{name}" for name in names]
    new_rows = ["--hidden", str(sizes.hidden), "--init", "codebook"]
    step(out, "text", write_base, out / "data/images/train", out / "text", sizes.text_ids)
    merge = ["vocab", "merge", "--base", f"{out}/text", *bundles, "-o", f"{out}/vocab", *new_rows, "--overwrite"]
    step(out, "vocab", mmtok, *merge)
    for split in SPLITS:
        codes = [f"{out}/codes/{name}-{split}" for name in names]
        for name, bundle, place in zip(names, bundles, codes, strict=True):
            shards = f"{out}/data/{NAMES[name]}/{split}"
            step(out, f"tokenize-{name}-{split}", mmtok, "tokenize", bundle, shards, place, *budgets[name])
        # A document of each kind for each thing in each language.
        orders = [f"--order={order}" for name in names for order in (f"text,{name}", f"{name},text")]
        rows = ["--to", "parquet", "--length", "256", "-o", f"{out}/packed/{split}", "--overwrite"]
        step(out, f"pack-{split}", mmtok, "pack", *codes, "--vocab", f"{out}/vocab", *orders, *rows)
    shape = Shape(sizes.hidden, sizes.layers, sizes.lm_steps, threads)
    step(out, "lm", train, out / "packed", out / "vocab", out / "lm", shape)
    step(out, "samples", write_samples, out, threads)
    step(out, "report", write_report, out, threads)


def step(out: Path, name: str, do: Callable[..., object], *arguments: object) -> None:
    """Do it unless it was done, and note how long it took, by the clock and in seconds of a core."""
    mark = out / "done" / name
    if mark.is_file():
        return
    print(f"\n== {name}", flush=True)
    began, used = time.monotonic(), cpu_seconds()
    do(*arguments)
    mark.parent.mkdir(exist_ok=True)
    mark.write_text(f"{time.monotonic() - began:.0f} s, {cpu_seconds() - used:.0f} s of a core\n")


def cpu_seconds() -> float:
    """Of this process and of all commands that it has run."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in each)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
