"""Every quantizer in one recipe on real speech, at 2 kb/s: how it sounds, what it uses, what its codes tell.

    mmtok shards build debian:asterisk -o data/asterisk --sample-rate 16000 --seconds 4 --features mfcc
    mmtok shards build fsdd.zip -o data/fsdd --sample-rate 16000 --split-by file --features mfcc
    python -m benchmarks.speech --asterisk data/asterisk --fsdd data/fsdd [--only vq,split] [--steps 500]

Each row is `mmtok train audio/demo quantizer/40bit/ROW` on both sets, four prompts to a digit, and `mmtok evaluate` on
held-out prompts, in processes of their own; a second call goes on where the first stopped. The probe reads digits
(with voices kept apart) and speakers off the codes of 2,700 digits: chance is 10 % and 17 %.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.runs import curves, measure, mmtok
from benchmarks.tables import table

ROWS: dict[str, list[str]] = {
    "none": ["quantizer.name=none"],
    "vq": ["quantizer/40bit/vq"],
    "rq": ["quantizer/40bit/rq"],
    "fsq": ["quantizer/40bit/fsq"],
    "lfq": ["quantizer/40bit/lfq"],
    "split": [
        "quantizer/40bit/split", "data.teacher=mfcc", "loss.meaning={name: distill, features: 39, span: 2.0}",
    ],
}  # fmt: skip
"""Row -> what it adds to the recipe. `split` learns from MFCC beside the signal."""
PROBED = 2_700


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asterisk", type=Path, required=True, help="shard sets of prompts")
    parser.add_argument("--fsdd", type=Path, required=True, help="shard sets of spoken digits")
    parser.add_argument("--out", type=Path, default=Path("runs/speech"))
    parser.add_argument("--only", help="comma-separated rows")
    parser.add_argument("--steps", type=int, default=500, help="updates at which all rows are read")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings for every row")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(ROWS)
    sets = [{"path": str(args.asterisk / "train"), "weight": 4}, {"path": str(args.fsdd / "train"), "weight": 1}]
    data = [f"data.shards={json.dumps(sets)}", f"data.val_shards={args.asterisk / 'val'}", "trainer.val_every=100"]
    rows = []
    for name in names:
        run, words = args.out / name, ["audio/demo", *ROWS[name], *data, *args.settings]
        report = measure(run, words, args.steps, ("--judged", "40"))
        told = None if name == "none" else probe(run, args.fsdd / "train", args.steps)
        rows.append(row(name, report, told))
    header = ["quantizer", "bits/s", "SI-SDR dB", "mel", "STFT", "PESQ", "STOI"]
    header += ["active", "efficiency", "digit", "speaker"]
    text = table(header, rows)
    print(text)
    (args.out / "table.md").write_text(text + "\n")
    curves(args.out, {name: {} for name in names}, ["si_sdr", "mel"], "prompts held out, 50 x 40 bits a second")


def probe(run: Path, digits: Path, steps: int) -> dict[str, Any]:
    """Accuracy of a linear model on the codes of spoken digits."""
    report = run / "evaluation" / f"probe-{steps}.json"
    if not report.is_file():
        words = ["--shards", str(digits), "--samples", str(PROBED), "--judged", "1", "--probe", "--out", str(report)]
        mmtok("evaluate", str(run), *words)
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def row(name: str, report: dict[str, Any], told: dict[str, Any] | None) -> list[str]:
    """One line of the table."""
    metrics, usage = report["metrics"], report["usage"]
    read = {} if told is None else {name: one["tokens"] for name, one in told["probe"]["labels"].items()}
    return [
        name,
        f"{metrics['bits_per_second']:,.0f}" if usage else "-",
        f"{metrics['si_sdr']:.2f}",
        *(f"{metrics[name]:.3f}" for name in ("mel", "stft")),
        *(f"{metrics[name]:.2f}" if name in metrics else "-" for name in ("pesq", "stoi")),
        " + ".join(f"{level['active']:.0%}" for level in usage) or "-",
        f"{metrics['bitrate_efficiency']:.0%}" if usage else "-",
        *(f"{read[name]:.0%}" if name in read else "-" for name in ("digit", "speaker")),
    ]


if __name__ == "__main__":
    main()
