"""What LPIPS and an adversary do to one small tokenizer, at equal steps: `image/vqgan_cifar` with and without each.

    python -m benchmarks.vqgan --data cifar10.zip --out runs/vqgan [--only pixel,both] [--steps 2000]

Each row is `mmtok train` and `mmtok evaluate`, in processes of their own; a second call goes on where the first
stopped.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.runs import curves, measure, seconds_per_step, shards
from benchmarks.tables import table

NO_LPIPS, NO_ADVERSARY = "loss.perceptual=null", "adversary=null"
ROWS = {
    "pixel": [NO_LPIPS, NO_ADVERSARY],
    "lpips": [NO_ADVERSARY],
    "adversary": [NO_LPIPS],
    "both": [],
}
"""Row -> what it takes from the recipe."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of train/CLASS and test/CLASS pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/vqgan"))
    parser.add_argument("--only", help="comma-separated rows")
    parser.add_argument("--steps", type=int, default=2000, help="updates at which all rows are read")
    parser.add_argument("--samples", type=int, default=2000, help="test pictures that are measured")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for every row")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ROWS)
    data = shards(args.data, args.out)
    evaluation = ("--features", "efflite0", "--samples", str(args.samples))
    rows = []
    for name in names:
        sets = [f"data.shards={data / 'train'}", f"data.val_shards={data / 'test'}"]
        words = ["image/vqgan_cifar", *ROWS[name], *sets, *args.settings]
        report = measure(args.out / name, words, args.steps, evaluation)
        rows.append(row(name, report, seconds_per_step(args.out / name)))
    header = ["terms", "PSNR dB", "SSIM", "LPIPS-alex", "FD-EffLite0", "active", "state", "s/step"]
    text = table(header, rows)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    curves(args.out, {name: {} for name in names}, ["psnr", "high_frequency_ratio"], "CIFAR-10, image/vqgan_cifar")


def row(name: str, report: dict[str, Any], seconds: float) -> list[str]:
    """One line of the table."""
    metrics, usage = report["metrics"], report["usage"][0]
    return [
        name,
        f"{metrics['psnr']:.2f}",
        f"{metrics['ssim']:.3f}",
        f"{metrics['LPIPS-alex']:.4f}",
        f"{metrics['FD-EffLite0']:.2f}",
        f"{round(usage['active'] * usage['size']):,}",
        usage["state"],
        f"{seconds:.3f}",
    ]


if __name__ == "__main__":
    main()
