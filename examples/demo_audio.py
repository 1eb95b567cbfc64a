"""`make demo-audio`: real speech to a trained, measured codec, by the same commands you would type.

Downloads telephone prompts of five voices in five languages as Debian packages, cuts them into shards, trains for about
eight minutes, evaluates on prompts that were held out beside Opus, and says what to hear and what to run next.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from steps import mmtok, train

SPEECH = "debian:asterisk"


def main() -> int:
    """Every step, each skipped where it was done before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo_audio"), help="where everything goes")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for training")
    parser.add_argument("--source", default=SPEECH, help="sounds: what 'mmtok shards build' takes")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the run")
    args = parser.parse_args()
    started = time.monotonic()
    shards, run = args.out / "shards", args.out / "run"
    if not (shards / "train" / "manifest.json").is_file():
        rate = ["--sample-rate", "16000", "--channels", "1", "--seconds", "4"]
        mmtok("shards", "build", args.source, "-o", str(shards), *rate)
    settings = [f"data.shards={shards}/train", f"data.val_shards={shards}/val", *args.settings]
    if not (run / "checkpoints" / "last.ckpt").is_file():
        train("audio/demo", run, settings, args.minutes, args.out)
    report = run / "evaluation" / "val.json"
    mmtok("evaluate", str(run), "--baselines", "--judged", "50", "--out", str(report))
    prompt = held_out_prompt(shards, args.out)
    mmtok("encode", str(run), str(prompt), "-o", str(args.out / "codes"), "--format", "mmc", "--overwrite")
    mmtok("decode", str(run), str(args.out / "codes" / f"{prompt.stem}.mmc"), "-o", str(args.out / "decoded"))
    summary(json.loads(report.read_text()), args.out, prompt, time.monotonic() - started)
    return 0


def held_out_prompt(shards: Path, out: Path) -> Path:
    """A prompt of the validation set, as a file."""
    from datamodules.shards import ShardSet

    members = ShardSet.open(shards / "val").read(0, 0).members
    path = out / "held_out.flac"
    path.write_bytes(members["flac"])
    return path


def summary(report: dict[str, Any], out: Path, prompt: Path, seconds: float) -> None:
    """What was learned, where it is to be seen and heard, what to run next."""
    metrics, run = report["metrics"], out / "run"
    judged = "".join(f", {name.upper()} {metrics[name]:.2f}" for name in ("pesq", "stoi") if name in metrics)
    fidelity = f"SI-SDR {metrics['si_sdr']:.2f} dB, mel distance {metrics['mel']:.3f}{judged}"
    active = sum(level["active"] for level in report["usage"]) / len(report["usage"])
    print(f"""
{"=" * 78}
A codec was trained on telephone prompts and measured on {report["samples"]} that it has not heard
({seconds / 60:.1f} minutes in all):

  {fidelity}, at {metrics["bits_per_second"]:,.0f} bits a second
  {active:.1%} of the codes of {len(report["usage"])} levels in use; the table above shows fewer levels, and Opus

Hear      {out}/decoded/{prompt.stem}.wav beside {prompt}
Look at   {run}/evaluation/   spectrograms, use of codes, the figures
          tensorboard --logdir {run}/tensorboard

Next      mmtok encode {run} YOUR.wav -o codes --format mmc && mmtok decode {run} codes/YOUR.mmc -o decoded
          mmtok train audio/demo quantizer/40bit/split data.shards={out}/shards/train run_dir={out}/split
          mmtok train audio/dac_16k data.shards=...    the published recipes, for GPUs: docs/audio.md
{"=" * 78}""")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
