"""Every quantizer in one recipe on CIFAR-10, at 10 bits a position, beside the peers' at their best settings.

    python -m benchmarks.cifar --data cifar10.zip --out runs/cifar [--only vq,peer_vq] [--steps 1500]

Each row is `mmtok train image/vqvae_cifar ...` and `mmtok evaluate`, in processes of their own; a second call goes on
where the first stopped. All rows are read at the same step; `--long` then carries `none` and `vq` on to twice as many.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.runs import curves, measure, seconds_per_step, shards
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
    for name, steps in [(name, args.steps) for name in names] + [(name, 2 * args.steps) for name in longer(args)]:
        sets = [f"data.shards={data / 'train'}", f"data.val_shards={data / 'test'}"]
        run, words = args.out / name, ["image/vqvae_cifar", *ROWS[name], *sets, *args.settings]
        report = measure(run, words, steps, ("--features", "none"))
        label = name if steps == args.steps else f"{name}, {steps} steps"
        rows.append(row(label, report, seconds_per_step(run)))
    header = ["quantizer", "PSNR dB", "SSIM", "active", "state", "gap dB", "bits/pixel", "s/step"]
    text = table(header, rows)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    styles = {}
    for name in names:
        ours = name.removeprefix("peer_")
        color = f"C{sorted({n.removeprefix('peer_') for n in ROWS}).index(ours)}"
        styles[name] = {"linestyle": "-" if name == ours else "--", "color": color}
    curves(args.out, styles, ["psnr"], "CIFAR-10, 64 positions of 10 bits")


def longer(args: argparse.Namespace) -> list[str]:
    """Rows that `--long` carries on."""
    return [name for name in ("none", "vq") if args.long and (not args.only or name in args.only.split(","))]


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
