"""Every quantizer in one recipe on CIFAR-10, at 10 bits a position, beside the peers' at their best settings.

    python -m benchmarks.cifar --data cifar10.zip --out runs/cifar [--only vq,peer_vq] [--steps 1500]

Each row is `mmtok train image/vqvae_cifar ...` and `mmtok evaluate`, in processes of their own; a second call goes on
where the first stopped. All rows are read at the same step; `--long` then carries `none` and `vq` on to twice as many.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.tables import table

PEER = "plugins=[benchmarks.peers]"
ROWS: dict[str, list[str]] = {
    "none": ["quantizer.name=none"],
    "vq": ["quantizer/10bit/vq"],
    "rq": ["quantizer/10bit/rq"],
    "pq": ["quantizer/10bit/pq"],
    "fsq": ["quantizer/10bit/fsq"],
    "lfq": ["quantizer/10bit/lfq"],
    "peer_vq": [PEER, "quantizer.name=peer_vq"],
    "peer_rq": [PEER, "quantizer.name=peer_rq", "quantizer.codebook_size=32"],
    "peer_fsq": [PEER, "quantizer.name=peer_fsq"],
    "peer_lfq": [PEER, "quantizer.name=peer_lfq"],
}
"""Row -> what it adds to the recipe."""


def mmtok(*words: str) -> None:
    """One command of the platform; its output goes on to ours."""
    subprocess.run([sys.executable, "-m", "mmtok", *words], check=True)


def shards(source: Path, out: Path) -> Path:
    """The shard sets of the archive, built once."""
    folder = out / "shards"
    if not (folder / "train" / "manifest.json").is_file():
        mmtok("shards", "build", str(source), "-o", str(folder))
    return folder


def measure(name: str, steps: int, data: Path, out: Path, extra: list[str]) -> dict[str, Any]:
    """Train one row to `steps` and read it there."""
    run = out / name
    report = run / "evaluation" / f"step-{steps}.json"
    if not report.is_file():
        settings = [f"data.shards={data / 'train'}", f"data.val_shards={data / 'test'}", f"run_dir={run}"]
        mmtok("train", "image/vqvae_cifar", *ROWS[name], *settings, *extra, f"trainer.max_steps={steps}")
        mmtok("evaluate", str(run), "--features", "none", "--out", str(report))
    return json.loads(report.read_text())


def seconds_per_step(run: Path) -> float:
    """Median over the log of the run."""
    with (run / "metrics.csv").open() as file:
        values = [float(row["speed/step_seconds"]) for row in csv.DictReader(file) if row.get("speed/step_seconds")]
    return statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="zip or folder of train/CLASS and test/CLASS pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar"))
    parser.add_argument("--only", help="comma-separated rows")
    parser.add_argument("--steps", type=int, default=1500, help="updates at which all rows are read")
    parser.add_argument("--long", action="store_true", help="carry none and vq on to twice the steps")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for every row")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ROWS)
    data = shards(args.data, args.out)
    rows = []
    for name in names:
        rows.append(
            row(name, measure(name, args.steps, data, args.out, args.settings), seconds_per_step(args.out / name))
        )
    if args.long:
        for name in (name for name in ("none", "vq") if name in names):
            report = measure(name, 2 * args.steps, data, args.out, args.settings)
            rows.append(row(f"{name}, {2 * args.steps} steps", report, seconds_per_step(args.out / name)))
    header = ["quantizer", "PSNR dB", "SSIM", "active", "state", "gap dB", "bits/pixel", "s/step"]
    text = table(header, rows)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    curves(args.out, names, args.out / "curves.png")


def curves(out: Path, names: list[str], target: Path) -> None:
    """Validation PSNR over the run, ours in full lines and the peers' dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    for name in names:
        with (out / name / "metrics.csv").open() as file:
            points = [(int(r["step"]), float(r["val/psnr"])) for r in csv.DictReader(file) if r.get("val/psnr")]
        peer = name.removeprefix("peer_")
        color = f"C{sorted({n.removeprefix('peer_') for n in ROWS}).index(peer)}"
        axes.plot(*zip(*points, strict=True), "--" if name != peer else "-", color=color, label=name, marker=".")
    axes.set(xlabel="updates", ylabel="validation PSNR, dB", title="CIFAR-10, 64 positions of 10 bits")
    axes.grid(alpha=0.3)
    axes.legend(ncols=2)
    figure.savefig(target, dpi=110, bbox_inches="tight")


def row(name: str, report: dict[str, Any], seconds: float) -> list[str]:
    """One line of the table."""
    metrics, usage = report["metrics"], report["usage"]
    active = " + ".join(f"{round(level['active'] * level['size']):,}" for level in usage) or "-"
    return [
        name,
        f"{metrics['psnr']:.2f}",
        f"{metrics['ssim']:.3f}",
        active,
        ", ".join(sorted({level["state"] for level in usage})) or "-",
        # A peer's projections cannot be told from its rounding, and its decoder never saw latents without them.
        "-" if name.startswith("peer_") else f"{metrics['quantization_gap']:.2f}",
        f"{metrics['bits_per_pixel']:.3f}" if usage else "-",
        f"{seconds:.3f}",
    ]


if __name__ == "__main__":
    main()
