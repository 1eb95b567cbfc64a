"""The sections of `python -m benchmarks.gpu`: each a function from a setting to the figures it found."""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import Section, Setting, ceilings_of, fresh, name_of, run, timed
from benchmarks.gpu.sounds import dac_16k
from mmtok.config import RunConfig, load_config
from mmtok.losses import losses
from mmtok.training.module import TokenizerModule

TINY = [
    "tokenizer.encoder.channels=8", "tokenizer.encoder.multipliers=[1,1]", "tokenizer.encoder.blocks=1",
    "tokenizer.image_size=32", "adversary.discriminator.channels=8", "adversary.discriminator.layers=1",
    "quantizer.codebook_size=64", "data.batch_size=8", "trainer.accelerator=cpu", "trainer.precision=32",
    "trainer.compile=false", "trainer.threads=1", "loss.perceptual=null",
]  # fmt: skip
"""`image/vqgan` in CPU sizes."""


def ceilings(setting: Setting) -> dict[str, Any]:
    """What the device gives to a plain matmul and a plain copy: what everything else is measured against."""
    side = 256 if setting.dry else 8192
    found: dict[str, Any] = {"device": name_of(setting.device), "torch": torch.__version__}
    kinds = {"bf16": (torch.bfloat16, False), "tf32": (torch.float32, True), "fp32": (torch.float32, False)}
    for kind, (dtype, tf32) in kinds.items():
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=setting.device, dtype=dtype) for _ in range(2))
        took = timed(lambda a=a, b=b: a @ b, setting.device)
        found[f"{kind}_flops_per_second"] = 2 * side**3 / took
    torch.backends.cuda.matmul.allow_tf32 = False
    source = torch.empty(2**20 if setting.dry else 2**30, dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)
    found["copy_bytes_per_second"] = 2 * source.numel() / timed(lambda: target.copy_(source), setting.device)
    return found


def step(setting: Setting) -> dict[str, Any]:
    """`image/vqgan` at 256 px with its adversary awake: seconds a step, images/s, MFU, data wait, peak memory."""
    rows = []
    for compiled in (False,) if setting.dry else (False, True):
        for batch in (8,) if setting.dry else (32, 64):
            rows.append(measure_step(setting, batch, compiled))
            print(json.dumps(rows[-1]), flush=True)
    return {"recipe": "image/vqgan", "rows": rows}


def measure_step(setting: Setting, batch: int, compiled: bool) -> dict[str, Any]:
    """One row of `step`: a real run of the trainer, its log read back."""
    steps = 4 if setting.dry else 60
    folder = fresh(setting.out / "work" / f"step-{batch}-{compiled}")
    config = vqgan(setting, folder, steps, [f"data.batch_size={batch}", f"trainer.compile={str(compiled).lower()}"])
    if not setting.dry:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    rows, module = run(config)
    # What compiles and warms up is in the first windows.
    seconds = statistics.median(float(row["speed/step_seconds"]) for row in rows[len(rows) // 2 :])
    flops = flops_of_step(config, module) * batch
    limit = ceilings_of(setting).get("bf16_flops_per_second")
    return {
        "batch": batch, "compiled": compiled, "precision": config.trainer.precision,
        "perceptual": config.loss.get("perceptual") is not None, "step_seconds": seconds,
        "images_per_second": batch / seconds, "flops_per_image": flops / batch,
        "mfu_of_measured_bf16_matmul": flops / seconds / limit if limit else None,
        "data_wait": statistics.median(float(row["speed/data_wait"]) for row in rows[len(rows) // 2 :]),
        "peak_gib": None if setting.dry else torch.cuda.max_memory_allocated() / 2**30,
    }  # fmt: skip


def flops_of_step(config: RunConfig, module: TokenizerModule) -> float:
    """Arithmetic of forward and backward of one picture, counted: networks, losses and discriminator."""
    from torch.utils.flop_counter import FlopCounterMode

    assert module.adversary is not None
    module = module.float()
    device = next(module.parameters()).device
    x = torch.rand(1, 3, config.data.image_size, config.data.image_size, device=device) * 2 - 1  # type: ignore[attr-defined]
    for network in (
        module.tokenizer.networks.encoder,
        module.tokenizer.networks.decoder,
        module.adversary.discriminator,
    ):
        network._compiled_call_impl = None  # counted as written, whatever the compiler made of it
    with FlopCounterMode(display=False) as counter:
        out = module.tokenizer(x)
        terms = [term(out.x, x) for term in module.terms.values()]
        both = module.adversary.judge(x, out.x, config.trainer.max_steps, terms[0], out.x)
        torch.stack([*terms, *(term for term in both[:2] if term is not None)]).sum().backward()
    return float(counter.get_total_flops())


def quantizers(setting: Setting) -> dict[str, Any]:
    """The table of `benchmarks.quantizers` at a GPU's sizes, with the arithmetic and traffic each search achieves."""
    from benchmarks.quantizer_sides import CUDA, Case
    from benchmarks.quantizers import run_case

    cases = (Case("vq", 512, 256, 8), Case("lfq", 256, 2**8, 16)) if setting.dry else tuple(reversed(CUDA))
    results, limits = [], ceilings_of(setting)
    for case in cases:
        result = run_case(case, 2 if setting.dry else 10, setting.device.type, 1)
        took = result["seconds"]["ours"]
        # What no exact search can avoid: every latent against every code; latents, codes and values moved once.
        searches = case.kind in ("vq", "rq")
        flops = 2.0 * case.rows * case.codes * case.dim * case.depth if searches else None
        if case.kind == "lfq":  # its mean distribution over the codes is one product of two tables of the root's size
            flops = 2.0 * case.rows * case.codes
        moved = 4.0 * (2 * case.rows * case.dim + (case.codes * case.dim if searches else 0)) * case.depth
        result["flops_per_second"] = flops / took if flops else None
        result["bytes_per_second"] = moved / took
        result["share_of_fp32_matmul"] = flops / took / limits["fp32_flops_per_second"] if flops and limits else None
        results.append(result)
        print(
            case, json.dumps({key: result[key] for key in ("times_faster", "times_bound", "memory_share")}), flush=True
        )
    return {"results": results}


def nccl(setting: Setting) -> dict[str, Any]:
    """A world of one on the collective library of GPUs: that DDP with an adversary runs on it, and what it costs."""
    from lightning.pytorch.strategies import DDPStrategy

    import mmtok.training.run as training

    backend = "gloo" if setting.dry else "nccl"
    steps, seconds = 4 if setting.dry else 40, {}
    plain = training.build_strategy
    for name in ("alone", backend):
        if name == backend:
            training.build_strategy = lambda config: DDPStrategy(
                find_unused_parameters=True, broadcast_buffers=False, process_group_backend=backend
            )
        folder = fresh(setting.out / "work" / f"nccl-{name}")
        rows, _ = run(vqgan(setting, folder, steps, [] if setting.dry else ["data.batch_size=32"]))
        seconds[name] = statistics.median(float(row["speed/step_seconds"]) for row in rows[len(rows) // 2 :])
    training.build_strategy = plain
    return {"backend": backend, "step_seconds": seconds, "ratio": seconds[backend] / seconds["alone"]}


def tests(setting: Setting) -> dict[str, Any]:
    """`pytest -m gpu`, whose failures are what a GPU shows first."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"], capture_output=True, text=True
    )
    print(done.stdout[-3000:], flush=True)
    return {"status": done.returncode, "summary": done.stdout.strip().splitlines()[-1], "tail": done.stdout[-3000:]}


def training(setting: Setting) -> dict[str, Any]:
    """Up to ten minutes of `image/vqgan` at 128 px, as the time left allows: its curve and its reconstructions."""
    minutes = min(10.0, setting.minutes - 2)
    folder = fresh(setting.out / "work" / "train")
    small = (
        []
        if setting.dry
        else ["tokenizer.image_size=128", "tokenizer.encoder.multipliers=[1,2,2,4]", "data.batch_size=64"]
    )
    probe, _ = run(vqgan(setting, folder / "probe", 4 if setting.dry else 40, small))
    seconds = statistics.median(float(row["speed/wall_seconds"]) for row in probe[len(probe) // 2 :])
    steps = 6 if setting.dry else max(100, int(60 * minutes / seconds))
    late = [f"adversary.start={steps // 4}", f"adversary.lead={steps // 20}", f"adversary.warmup_steps={steps // 10}"]
    late += [f"optim.warmup_steps={steps // 50}", f"trainer.val_every={max(1, steps // 8)}"]
    started = time.monotonic()
    config = vqgan(setting, folder / "run", steps, [*small, *late], awake=False)
    rows, _ = run(config)
    report = setting.out / "train-evaluation.json"
    words = [sys.executable, "-m", "mmtok", "evaluate", config.run_dir, "--out", str(report)]
    subprocess.run(words, check=True)
    curve = [{key: row[key] for key in ("step", "val/psnr", "val/ssim")} for row in rows if row.get("val/psnr")]
    return {
        "settings": [*small, *late], "perceptual": config.loss.get("perceptual") is not None,
        "steps": steps, "seconds": time.monotonic() - started, "curve": curve,
        "evaluation": json.loads(report.read_text())["metrics"],
    }  # fmt: skip


SECTIONS = {
    "ceilings": Section(ceilings, 0.5),
    "step": Section(step, 5),
    "tests": Section(tests, 3),
    "quantizers": Section(quantizers, 4),
    "nccl": Section(nccl, 2),
    "train": Section(training, 6),
    "dac_16k": Section(dac_16k, 12),
}
"""Name -> what is measured, most valuable first. Later work adds to it."""


def vqgan(setting: Setting, folder: Path, steps: int, settings: list[str], awake: bool = True) -> RunConfig:
    """`image/vqgan` for so many steps on the pictures of the setting, its adversary awake from the first step on."""
    shards = pictures(setting)
    overrides = [f"data.shards={shards}", f"run_dir={folder}", f"trainer.max_steps={steps}", "log.tensorboard=false"]
    overrides += [
        "trainer.val_every=0",
        "checkpoint.every_steps=0",
        "data.workers=1" if setting.dry else "data.workers=12",
    ]
    overrides += [f"log.every_steps={1 if setting.dry else 5}", "adversary.start=0" if awake else "adversary.start=1"]
    overrides += TINY if setting.dry else []
    config = load_config(
        ["image/vqgan", "hardware/cpu" if setting.dry else "hardware/gpu"], [*overrides, *settings]
    ).config
    perceptual = config.loss.get("perceptual")
    if perceptual is not None and losses.class_of(perceptual).lacks(perceptual):  # type: ignore[attr-defined]
        kept = {name: term for name, term in config.loss.items() if name != "perceptual"}
        config = dataclasses.replace(config, loss=kept)
    return config


def pictures(setting: Setting) -> Path:
    """The shard set of the setting, built once."""
    from datamodules.build import build_shards

    folder = setting.out / "work" / "shards"
    if not (folder / "train" / "manifest.json").is_file():
        build_shards(setting.pictures or "fixture", folder)
    return folder / "train"
