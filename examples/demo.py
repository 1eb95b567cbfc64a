"""`make demo`: real pictures to a trained, measured image tokenizer, by the same commands you would type.

Downloads photographs as a Debian package (or takes the committed fixture, and says so), makes shards, trains for about
six minutes, evaluates on photographs that were held out, and says what to look at and what to run next.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps import mmtok, train

PACKAGE, FIXTURE = "debian:endless-sky", "fixture"


def main() -> int:
    """Every step, each skipped where it was done before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where everything goes")
    parser.add_argument("--minutes", type=float, default=6.0, help="time for training")
    parser.add_argument("--source", help="pictures: what 'mmtok shards build' takes; by default a Debian package")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the run")
    args = parser.parse_args()
    started = time.monotonic()
    shards, run = args.out / "shards", args.out / "run"
    source = build(args.source, shards)
    settings = [f"data.shards={shards}/train", f"data.val_shards={shards}/val", *args.settings]
    report = run / "evaluation" / "val.json"
    if not (run / "checkpoints" / "last.ckpt").is_file():
        train("image/demo", run, settings, args.minutes, args.out)
    mmtok("evaluate", str(run), "--features", "dct", "--out", str(report))
    photograph = held_out_photograph(shards, args.out)
    mmtok("encode", str(run), str(photograph), "-o", str(args.out / "codes"), "--overwrite")
    codes = args.out / "codes" / f"{photograph.stem}.codes.safetensors"
    mmtok("decode", str(run), str(codes), "-o", str(args.out / "decoded"), "--overwrite")
    summary(json.loads(report.read_text()), source, args.out, photograph, time.monotonic() - started)
    return 0


def build(wanted: str | None, shards: Path) -> str:
    """The shard sets, and where their pictures come from."""
    manifest = shards / "train" / "manifest.json"
    if manifest.is_file():
        return str(json.loads(manifest.read_text())["source"])
    source = wanted or (PACKAGE if shutil.which("apt-get") else FIXTURE)
    try:
        # Tiles of 96: photographs of 720 x 360 give 21 each, and every tile of one is on the same side of the split.
        mmtok("shards", "build", source, "-o", str(shards), *(["--tile", "96"] if source != FIXTURE else []))
    except subprocess.CalledProcessError:
        if wanted or source == FIXTURE:
            raise
        print(f"\n{PACKAGE} cannot be had here: going on with the 64 committed pictures, on which little is learned.")
        source = FIXTURE
        mmtok("shards", "build", source, "-o", str(shards))
    return source


def held_out_photograph(shards: Path, out: Path) -> Path:
    """The first picture of the validation set, as a file."""
    from datamodules.shards import ShardSet

    sample = ShardSet.open(shards / "val").read(0, 0)
    extension = next(ext for ext in sample.members if ext in ("jpg", "jpeg", "png", "webp"))
    path = out / f"held_out.{extension}"
    path.write_bytes(sample.members[extension])
    return path


def summary(report: dict[str, Any], source: str, out: Path, photograph: Path, seconds: float) -> None:
    """What was learned, where it is to be seen, what to run next."""
    metrics, codes = report["metrics"], report["usage"][0]
    run, bits, ceiling = out / "run", metrics["bits_per_pixel"], metrics["psnr_bypass"]
    print(f"""
{"=" * 78}
A tokenizer was trained on {source} and measured on {report["samples"]} squares of photographs it has not
seen ({seconds / 60:.1f} minutes in all):

  PSNR {metrics["psnr"]:.2f} dB, SSIM {metrics["ssim"]:.3f}, at {bits:.3f} bits a pixel (8-bit colour has 24)
  {codes["active"]:.1%} of {codes["size"]:,} codes in use: {codes["state"]}
  {metrics["high_frequency_ratio"]:.0%} of the fine detail is kept; without rounding PSNR would be {ceiling:.2f} dB

Look at   {run}/evaluation/val-reconstructions.png   input, reconstruction, difference
          {run}/evaluation/val-usage.png             how often each code occurs
          {out}/decoded/{photograph.stem}.png beside {photograph}
          tensorboard --logdir {run}/tensorboard

Next      mmtok train image/demo quantizer/10bit/fsq data.shards={out}/shards/train run_dir={out}/fsq
          the same with another quantizer of as many bits (vq, rq, pq, fsq, lfq); then: mmtok evaluate {out}/fsq
          mmtok shards build YOUR_FOLDER -o data/mine && mmtok train image/demo data.shards=data/mine/train
          mmtok doctor    what this machine has, and what each recipe still lacks
{"=" * 78}""")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
