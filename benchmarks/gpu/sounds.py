"""`audio/dac_16k` on a GPU: how fast it trains, and what minutes of speech make of it."""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import Setting, fresh, run
from datamodules.build import build_shards
from datamodules.manifest import MANIFEST, Manifest
from mmtok.config import RunConfig, load_config

MINUTES = 15.0
"""Of training at most."""
RESERVE = 6.0
"""Minutes of the section's time that evaluation gets, and compiling: validation has clips of other lengths."""
BATCHES = (72, 48, 32, 16, 8, 4)
"""The recipe's, and what is tried after it where the memory is too small: multiples of its four crops a clip."""
TINY = [
    "tokenizer.dim=16", "tokenizer.encoder.channels=4", "tokenizer.encoder.decoder_channels=32",
    "quantizer.depth=3", "quantizer.codebook_size=16", "data.batch_size=8", "data.seconds=0.1", "data.val_samples=8",
    "data.val_seconds=1", "data.workers=0", "loss.spectral.windows=[64,256]", "loss.spectral.bands=[10,20]",
    "adversary.discriminator.inner=[{name: mpd, channels: 2}, {name: multiband, windows: [256], channels: 4}]",
    "trainer.accelerator=cpu", "trainer.precision=32", "trainer.compile=false", "trainer.threads=1",
]  # fmt: skip
"""`audio/dac_16k` in CPU sizes."""


def dac_16k(setting: Setting) -> dict[str, Any]:
    """Speed in both precisions, compiled and not; then up to 15 minutes of training as the time left allows, measured
    on held-out clips with all levels and with the first ones.
    """
    started = time.monotonic()
    data = sounds(setting)
    kinds = [("32", False)] if setting.dry else [("32", False), ("bf16-mixed", False), ("bf16-mixed", True)]
    rows = [measure_speed(setting, data, precision, compiled) for precision, compiled in kinds]
    best = min(rows, key=lambda row: row["wall_seconds"] / row["batch"])
    left = setting.minutes - (time.monotonic() - started) / 60 - RESERVE
    trained = train(setting, data, best, max(1.0, min(MINUTES, left)))
    return {"recipe": "audio/dac_16k", "data": described(data), "rows": rows, **trained}


def measure_speed(setting: Setting, data: list[Path], precision: str, compiled: bool) -> dict[str, Any]:
    """One row: 30 updates of the largest batch that fits."""
    for batch in BATCHES:
        try:
            row = _measure_speed(setting, data, precision, compiled, batch)
        except torch.OutOfMemoryError:
            print(f"{batch} crops do not fit", flush=True)
        else:
            print(json.dumps(row), flush=True)
            return row
        gc.collect()  # after the handler, which holds the frames and with them the tensors
        torch.cuda.empty_cache()
    raise RuntimeError(f"audio/dac_16k does not fit into this device with {BATCHES[-1]} crops.")


def _measure_speed(setting: Setting, data: list[Path], precision: str, compiled: bool, batch: int) -> dict[str, Any]:
    steps = 4 if setting.dry else 30
    folder = fresh(setting.out / "work" / f"dac-{precision}-{compiled}")
    words = mode(setting, precision, compiled, batch)
    config = recipe(setting, folder, data, steps, [*words, "trainer.val_every=0"])
    if not setting.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    lines, _ = run(config)
    late = lines[len(lines) // 2 :]  # what compiles and warms up is in the first windows
    seconds = statistics.median(float(line["speed/step_seconds"]) for line in late)
    return {
        "batch": config.data.batch_size, "precision": precision, "compiled": compiled, "step_seconds": seconds,
        "sound_seconds_per_second": config.data.batch_size * config.data.seconds / seconds,  # type: ignore[attr-defined]
        "wall_seconds": statistics.median(float(line["speed/wall_seconds"]) for line in late),
        "data_wait": statistics.median(float(line["speed/data_wait"]) for line in late),
        "peak_gib": None if setting.dry else torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip


def train(setting: Setting, data: list[Path], how: dict[str, Any], minutes: float) -> dict[str, Any]:
    """So many minutes of training, its curve, and its evaluation."""
    steps = 6 if setting.dry else max(100, int(60 * minutes / how["wall_seconds"]))
    settings = mode(setting, how["precision"], how["compiled"], how["batch"])
    settings += [f"trainer.val_every={max(1, steps // 6)}", f"log.media_every_steps={max(1, steps // 3)}"]
    started = time.monotonic()
    config = recipe(setting, fresh(setting.out / "work" / "dac-train"), data, steps, settings)
    lines, _ = run(config)
    seconds = time.monotonic() - started
    report = setting.out / "dac_16k-evaluation.json"
    judged = "4" if setting.dry else "60"
    subprocess.run(
        [sys.executable, "-m", "mmtok", "evaluate", config.run_dir, "--out", str(report), "--judged", judged],
        check=True,
    )
    found = json.loads(report.read_text())
    shown = ("step", "val/si_sdr", "val/mel", "val/stft")
    return {
        "settings": settings, "steps": steps, "seconds": seconds,
        "curve": [{name: line[name] for name in shown} for line in lines if line.get("val/si_sdr")],
        "evaluation": found["metrics"], "by_levels": found["by_levels"],
    }  # fmt: skip


def mode(setting: Setting, precision: str, compiled: bool, batch: int) -> list[str]:
    """Settings of a row; none in CPU sizes."""
    words = [f"trainer.precision={precision}", f"trainer.compile={str(compiled).lower()}", f"data.batch_size={batch}"]
    return [] if setting.dry else words


def recipe(setting: Setting, folder: Path, data: list[Path], steps: int, settings: list[str]) -> RunConfig:
    """`audio/dac_16k` for so many updates on shard sets, each read by its size."""
    sets = [f"{{path: '{path}', weight: {Manifest.load(path / MANIFEST).samples}}}" for path in data]
    words = [f"data.shards=[{', '.join(sets)}]", f"run_dir={folder}", f"trainer.max_steps={steps}"]
    words += ["log.tensorboard=false", "checkpoint.every_steps=0", f"log.every_steps={1 if setting.dry else 5}"]
    words += TINY if setting.dry else ["data.workers=12", "data.val_samples=200"]
    hardware = "hardware/cpu" if setting.dry else "hardware/gpu"
    return load_config(["audio/dac_16k", hardware], [*words, *settings]).config


def sounds(setting: Setting) -> list[Path]:
    """The training sets: shards as they are, anything else built once at 16 kHz."""
    speech = Path("data/speech")
    sources = setting.sounds or ((str(speech),) if (speech / "train" / MANIFEST).is_file() else ())
    found = []
    for number, source in enumerate(sources or ("fixture:sonic-pi",)):
        folder = Path(source)
        if not (folder / "train" / MANIFEST).is_file():
            folder = setting.out / "work" / f"sounds-{number}"
            if not (folder / "train" / MANIFEST).is_file():
                print(build_shards(source, folder, kind="audio", sample_rate=16000, channels=1, workers=4), flush=True)
        found.append(folder / "train")
    return found


def described(data: list[Path]) -> list[dict[str, Any]]:
    """What was trained on, for a reader of the figures."""
    manifests = [Manifest.load(path / MANIFEST) for path in data]
    shown = ("name", "version", "sha256", "hours")
    return [
        {name: one.provenance.get(name) for name in shown} | {"samples": one.samples, "manifest": one.fingerprint}
        for one in manifests
    ]
