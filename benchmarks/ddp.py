"""Is training on two ranks training on one process? Every case on both, over the same global batches, on CPUs (gloo).

    python -m benchmarks.ddp [--steps 20] [--only vq,gan] [--out runs/ddp]

Prints, of each case: the largest difference between the ranks' states (0 is equality bit by bit), the largest one to
the single process, and the collectives of an update outside the lines of the log, by kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.sets import RATE, prepare
from benchmarks.tables import table
from mmtok.config import parse_config
from mmtok.training.module import TokenizerModule
from mmtok.training.run import train

STEPS = 20
VQ = {"name": "vq", "codebook_size": 32, "init": "kmeans", "restart": 0.3}
RQ = {"name": "rq", "codebook_size": 16, "depth": 3, "dropout": 0.5}
GAN = {
    "discriminator": {"name": "patchgan", "channels": 8, "layers": 1}, "start": 4, "lead": 2, "warmup_steps": 4,
    "lecam": 0.01,
}  # fmt: skip
CODES = {"codebook_size": 16, "init": "kmeans"}
SPLIT = {
    "name": "split", "inner_dim": 8, "bypass": 0.3,
    "semantic": {"name": "vq", **CODES}, "acoustic": {"name": "rq", "depth": 3, "dropout": 0.5, **CODES},
}  # fmt: skip
SOUND_GAN = {
    "discriminator": {
        "name": "ensemble",
        "inner": [{"name": "mpd", "channels": 2}, {"name": "msstft", "windows": [256, 64], "channels": 4}],
    },
    "objective": "least_squares", "weight": 1.0, "feature_weight": 2.0, "share": 0.67,
}  # fmt: skip
PQ = {"name": "pq", "codebook_size": 16, "groups": 4, "init": "kmeans", "restart": 0.1}
VIT = {"patch": 4, "width": 16, "layers": 1, "heads": 2}
TAUGHT = {"name": "distill", "features": 10, "levels": "all", "pool": True, "weight": 0.3, "balance": True}
PAIRED = {"name": "contrastive", "features": 10, "width": 8, "weight": 0.3}
CASES: dict[str, dict[str, Any]] = {
    "vq": {"quantizer": VQ},
    "vq-halves": {"quantizer": VQ, "accumulate": 2},
    "vq-workers": {"quantizer": VQ, "workers": 2},
    "vq-low-halves": {"quantizer": VQ | {"learn": "gradient", "code_dim": 4, "l2": True}, "accumulate": 2},
    "rq": {"quantizer": RQ},
    "rq-halves": {"quantizer": RQ, "accumulate": 2},
    "lfq": {"quantizer": {"name": "lfq", "bits": 6, "entropy_weight": 0.1}},
    "gan": {"quantizer": VQ, "adversary": GAN},
    "gan-halves": {"quantizer": VQ, "adversary": GAN, "accumulate": 2},
    "gan-workers": {"quantizer": VQ, "adversary": GAN, "workers": 2},
    "gan-adaptive": {"quantizer": VQ, "adversary": GAN | {"adaptive": True, "lecam": 0.0}},
    # Plain codes: among so many latents a restart falls on another one by rounding.
    "gan-lpips": {"quantizer": {"name": "vq", "codebook_size": 32}, "adversary": GAN, "lpips": True},
    "gan-frozen": {"quantizer": VQ, "adversary": GAN, "freeze": ["encoder", "quantizer"]},
    "audio": {"quantizer": SPLIT, "adversary": SOUND_GAN, "sounds": True},
    "audio-halves": {"quantizer": SPLIT, "adversary": SOUND_GAN, "sounds": True, "accumulate": 2},
    "text": {"quantizer": VQ, "texts": True},
    "text-halves": {"quantizer": RQ, "texts": True, "accumulate": 2},
    "vector": {"quantizer": RQ | {"init": "kmeans", "restart": 0.3, "dropout": 0.0}, "vectors": True},
    "nested": {"quantizer": VQ, "row": True},
    "nested-halves": {"quantizer": RQ | {"init": "kmeans"}, "row": True, "accumulate": 2},
    "unified": {"quantizer": PQ, "meaning": TAUGHT},
    "unified-first": {"quantizer": RQ, "meaning": TAUGHT | {"levels": "first"}},
    "contrastive": {"quantizer": VQ, "meaning": PAIRED, "vit": True},
    "contrastive-halves": {"quantizer": PQ, "meaning": PAIRED | {"balance": True}, "row": True, "accumulate": 2},
}
"""What a case sets of quantizer, adversary, LPIPS, meaning, frozen parts, accumulation, workers, networks, modality."""
COUNTED = (STEPS - 4, STEPS - 3, STEPS - 2)
"""Updates whose collectives are counted: none of them logs, validates, saves, or asks the first rank's clock."""


def tree(case: str, world: int, out: Path, steps: int) -> dict[str, Any]:
    """A run of a second over the committed fixture. Of 9 validation samples the second rank's last batch has none."""
    settings = CASES[case]
    encoder = {"name": "conv2d", "channels": 8, "multipliers": [1, 1], "blocks": 1, "mid_blocks": 0}
    size = 16
    loss: dict[str, Any] = {"pixel": {"name": "l2"}}
    if settings.get("lpips"):  # with random weights, of which every machine has some
        size, loss["perceptual"] = 32, {"name": "lpips", "net": "alex", "weights": str(backbone(out)), "weight": 0.1}
    data: dict[str, Any] = {"image_size": size, "batch_size": 8, "val_batch_size": 4, "val_samples": 9, "streams": 4}
    tokenizer: dict[str, Any] = {"name": "image", "image_size": size, "dim": 8, "encoder": encoder}
    data |= {"name": "images", "shards": str(out / "shards" / "train")}
    if settings.get("row"):
        tokenizer |= {"name": "image_1d", "encoder": VIT | {"name": "queries", "queries": 8}, "nested": "uniform_pow2"}
    if settings.get("vit"):
        tokenizer |= {"encoder": VIT | {"name": "vit"}}
    if settings.get("meaning"):
        loss["meaning"] = settings["meaning"]
        data |= {"shards": str(out / "taught" / "train"), "teacher": "colours"}
    if settings.get("sounds"):
        tokenizer, loss, data = of_sounds(out)
    if settings.get("texts"):
        tokenizer, loss, data = of_texts(out)
    if settings.get("vectors"):
        tokenizer, loss, data = of_vectors(out)
    return {
        "tokenizer": tokenizer,
        "quantizer": settings["quantizer"],
        "loss": loss,
        "data": data | {"workers": settings.get("workers", 0)},
        "adversary": settings.get("adversary"),
        # Without this eps Adam makes a full step of a gradient that is nothing but rounding.
        "optim": {"lr": 1e-3, "eps": 1e-3, "clip": 1.0, "ema": 0.9, "schedule": "cosine", "warmup_steps": 3}
        | {"freeze": settings.get("freeze", [])},
        "trainer": {
            "max_steps": steps, "accelerator": "cpu", "devices": world, "threads": 1,
            "accumulate": settings.get("accumulate", 1), "val_every": 5,
        },
        "checkpoint": {"every_steps": 4, "every_minutes": 10.0, "keep": 0},
        "log": {"every_steps": 5, "usage_every_steps": 5, "tensorboard": False, "media_every_steps": 5},
        "run_dir": str(out / f"{case}-{world}"),
    }  # fmt: skip


def of_sounds(out: Path) -> tuple[dict[str, Any], ...]:
    """The blocks tokenizer, loss and data of a codec whose first level has a teacher."""
    encoder = {"name": "seanet", "channels": 4, "strides": [4, 5]}
    loss = {
        "wave": {"name": "l1"},
        # A high floor: among bands of almost nothing a logarithm makes much of rounding.
        "mel": {"name": "mel", "windows": [64, 256], "bands": [10, 20], "floor": 1e-3},
        "teacher": {"name": "distill", "features": 6},
    }
    data = {
        "name": "audio", "shards": str(out / "sounds" / "train"), "sample_rate": RATE, "seconds": 0.2,
        "val_seconds": 1.0, "teacher": "level", "batch_size": 8, "val_batch_size": 4, "val_samples": 9, "streams": 4,
    }  # fmt: skip
    return {"name": "audio", "sample_rate": RATE, "dim": 16, "encoder": encoder}, loss, data


def of_texts(out: Path) -> tuple[dict[str, Any], ...]:
    """The blocks tokenizer, loss and data of texts as bytes, most of them shorter than a crop, and padded."""
    tokenizer = {"name": "vq_bytes", "dim": 8, "encoder": {"name": "bytes1d", "channels": 4}}
    data = {
        "name": "text_bytes", "shards": str(out / "texts" / "train"), "bytes": 64, "val_bytes": 100, "batch_size": 8,
        "val_batch_size": 4, "val_samples": 9, "streams": 4,
    }  # fmt: skip
    return tokenizer, {"bytes": {"name": "bytes"}}, data


def of_vectors(out: Path) -> tuple[dict[str, Any], ...]:
    """The blocks tokenizer, loss and data of vectors, which are standardised."""
    tokenizer = {"name": "vector", "width": 12, "dim": 8, "encoder": {"name": "mlp", "widths": [16]}}
    data = {
        "name": "vectors", "shards": str(out / "vectors" / "train"), "batch_size": 16, "val_batch_size": 4,
        "val_samples": 9, "streams": 4,
    }  # fmt: skip
    return tokenizer, {"pixel": {"name": "l2", "reduce": "sum", "weight": 0.1}}, data


def backbone(out: Path) -> Path:
    """An AlexNet nobody trained."""
    from safetensors.torch import save_file
    from torchvision.models import alexnet

    path = out / "alexnet.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        state = alexnet(weights=None).features.state_dict(prefix="features.")
        draft = path.with_suffix(f".{os.getpid()}")  # several ranks come here at once
        save_file(state, draft)
        os.replace(draft, path)
    return path


class Collectives:
    """Counts what the ranks exchange between the start of one batch and the end of another, DDP's own included."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._profile: profile | None = None

    def start(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU])
        self._profile.__enter__()

    def stop(self) -> None:
        if self._profile is None:
            return
        self._profile.__exit__(None, None, None)
        names = (event.name for event in self._profile.events() or ())
        self.found.update(name.removeprefix("gloo:") for name in names if name.startswith("gloo:"))
        self._profile = None


def run_rank(world: int, out: Path, cases: list[str], steps: int) -> None:
    """Train every case as one rank of `world`; Lightning starts the second by running this again.

    Once for all cases, because starting is what takes the time.
    """
    for case in cases:
        count = Collectives()

        def before(module: TokenizerModule, batch: Any, batch_idx: int, count: Collectives = count) -> None:
            if world > 1 and module.trainer.global_step in COUNTED:
                count.stop()  # of the batch before, where several make an update
                count.start()

        def after(module: TokenizerModule, outputs: Any, batch: Any, batch_idx: int, c: Collectives = count) -> None:
            c.stop()

        def end(module: TokenizerModule, case: str = case, count: Collectives = count) -> None:
            torch.save(module.state_dict(), out / f"{case}-{module.global_rank}of{world}.pt")
            counts = {name: number / len(COUNTED) for name, number in sorted(count.found.items())}
            (out / f"{case}-{module.global_rank}of{world}.json").write_text(json.dumps(counts))

        TokenizerModule.on_train_batch_start = before  # type: ignore[method-assign]
        TokenizerModule.on_train_batch_end = after  # type: ignore[method-assign]
        TokenizerModule.on_train_end = end  # type: ignore[method-assign]
        train(parse_config(tree(case, world, out, steps)), say=lambda line: None)


def run_worlds(out: Path, cases: list[str], steps: int = STEPS) -> None:
    """Train the cases on one process and on two ranks, at the same time.

    Raises:
        RuntimeError: a rank failed, with what it said.
    """
    prepare(out)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-m", "benchmarks.ddp", "--out", str(out), "--only", ",".join(cases)]
    starts = [[*words, "--steps", str(steps), "--world", str(world)] for world in (1, 2)]
    runs = [subprocess.Popen(start, env=env, stderr=subprocess.PIPE, text=True) for start in starts]
    for run in runs:
        _, errors = run.communicate(timeout=600)
        if run.returncode:
            raise RuntimeError(errors)


def state(out: Path, case: str, rank: int, world: int) -> dict[str, torch.Tensor]:
    """What a rank ended with."""
    return torch.load(out / f"{case}-{rank}of{world}.pt", weights_only=True)


def collectives(out: Path, case: str, rank: int = 0) -> dict[str, float]:
    """Collectives of an update by kind, as one of two ranks counted them."""
    return json.loads((out / f"{case}-{rank}of2.json").read_text())


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of two states."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one if one[name].numel())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", help="comma-separated cases")
    parser.add_argument("--out", type=Path, default=Path("runs/ddp"), help="an empty folder")
    parser.add_argument("--world", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    cases = args.only.split(",") if args.only else list(CASES)
    if args.world:
        run_rank(args.world, args.out, cases, args.steps)
        return
    run_worlds(args.out, cases, args.steps)
    rows = []
    for case in cases:
        first, second, alone = (state(args.out, case, *place) for place in ((0, 2), (1, 2), (0, 1)))
        counts = ", ".join(f"{number:g} {kind}" for kind, number in collectives(args.out, case).items())
        rows.append([case, f"{apart(first, second):g}", f"{apart(first, alone):.1e}", counts])
    print(table(["case", "between ranks", "to one process", "collectives an update"], rows))


if __name__ == "__main__":
    main()
