"""What the platform costs: seconds a step of `mmtok train` against a bare PyTorch loop over the same modules.

    python -m benchmarks.step [--recipe image/vqvae_cifar] [--steps 60] [--data FOLDER]

Both sides train the same tokenizer, quantizer, losses, discriminator and optimisers on the same shard set, in turn, in
this process. "loop" includes the same data loader, so the ratio is what Lightning, log, callbacks and guards cost. With
an adversary (`--recipe image/vqgan_cifar`) both sides are judged and learn from the first step on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from datamodules.base import datamodules
from mmtok.config import RunConfig, load_config
from mmtok.losses.adversarial import hinge, hinge_generator
from mmtok.training.adversary import Adversary, frozen
from mmtok.training.module import TokenizerModule
from mmtok.training.optim import build_optimizer, gradient_norm, learning_rate, set_learning_rate, update_average
from mmtok.training.run import build_module, build_trainer, quiet


class Clock(L.Callback):
    """Seconds of each step of the trainer, from the end of one to the end of the next."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: list[float] = []
        self._last: float | None = None

    def on_train_batch_end(self, *args: Any) -> None:
        synchronise(self.device)
        now = time.perf_counter()
        if self._last is not None:
            self.seconds.append(now - self._last)
        self._last = now


def synchronise(device: torch.device) -> None:
    """Wait for the device, so that a clock reads work that was done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def platform_steps(config: RunConfig, module: TokenizerModule, folder: Path) -> list[float]:
    """Steps of the trainer, with every callback of a real run."""
    data = datamodules.build(config.data)
    data.plan(seed=config.seed, accumulate=1)
    trainer = build_trainer(config, folder, lambda line: None)
    clock = Clock(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    trainer.callbacks.append(clock)
    trainer.fit(module, datamodule=data)
    return clock.seconds


def bare_steps(config: RunConfig, module: TokenizerModule, folder: Path) -> list[float]:
    """The same arithmetic in a plain loop: forward, losses, backward, clip, step, codebook, average."""
    data = datamodules.build(config.data)
    data.plan(seed=config.seed, accumulate=1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module.to(device).train()
    optimizer = build_optimizer(config.optim, [module.tokenizer])
    judge, judges = module.adversary, None
    if judge is not None:
        judges = build_optimizer(judge.config.optim or config.optim, [judge])
    bf16 = config.trainer.precision == "bf16-mixed"
    seconds, last = [], None
    for step, batch in zip(range(config.trainer.max_steps), data.train_dataloader(), strict=False):
        batch = data.on_after_batch_transfer({**batch, "x": batch["x"].to(device)}, 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            out = module.tokenizer(batch["x"])
            both = adversarial_terms(judge, batch["x"], out.x) if judge is not None else []
        terms = [term.config.weight * term(out.x.float(), batch["x"]) for term in module.terms.values()]
        loss = torch.stack([*terms, *both, *out.quantized.losses.values()]).sum()
        loss.backward()
        norm = gradient_norm(module.tokenizer.parameters(), config.optim.clip)
        assert torch.isfinite(norm)
        set_learning_rate(optimizer, learning_rate(config.optim, step, config.trainer.max_steps))
        optimizer.step()
        optimizer.zero_grad()
        module.tokenizer.quantizer.update(out.quantized.stats)
        if module.ema is not None:
            update_average(module.ema, module.tokenizer, config.optim.ema, step)
        if judge is not None and judges is not None:
            gradient_norm(judge.parameters(), (judge.config.optim or config.optim).clip)
            judges.step()
            judges.zero_grad()
        synchronise(device)
        now = time.perf_counter()
        if last is not None:
            seconds.append(now - last)
        last = now
    return seconds


def adversarial_terms(judge: Adversary, x: torch.Tensor, fake: torch.Tensor) -> list[torch.Tensor]:
    """What both sides want, at a constant weight."""
    with frozen(judge.discriminator):
        push = judge.config.weight * hinge_generator(judge.discriminator(fake).logits[0].float())
    real, judged = judge.discriminator(torch.cat([x.to(fake.dtype), fake.detach()])).logits[0].float().chunk(2)
    terms = [push, hinge(real, judged)]
    if judge.lecam is not None:
        terms.append(judge.config.lecam * judge.lecam(real, judged))
        judge.lecam.update(judge.lecam.stats(real, judged))
    return terms


def time_to_first_step(recipe: str, shards: Path, folder: Path) -> float:
    """Seconds from the command to the end of a run of one step, in a process of its own."""
    started = time.perf_counter()
    words = [recipe, f"data.shards={shards}", f"run_dir={folder}", "trainer.max_steps=1", "trainer.val_every=0"]
    words += ["data.val_samples=1"]
    subprocess.run([sys.executable, "-m", "mmtok", "train", *words], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="image/vqvae_cifar")
    parser.add_argument("--steps", type=int, default=40, help="steps of one round of one side")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the sides take turns")
    parser.add_argument("--data", help="folder of a shard set; by default the committed fixture")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    parser.add_argument("settings", nargs="*", help="key=value")
    args = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = args.data or fixture(folder)
        overrides = [f"data.shards={shards}", f"trainer.max_steps={args.steps}", "trainer.val_every=0"]
        overrides += ["checkpoint.every_steps=0", "data.val_samples=64", *args.settings]
        config = load_config([args.recipe], overrides).config
        if config.adversary is not None:
            awake = dataclasses.replace(config.adversary, start=0, lead=0, warmup_steps=0)
            config = dataclasses.replace(config, adversary=awake)
        sides: dict[str, list[float]] = {"mmtok": [], "loop": []}
        for round_ in range(args.rounds):
            for name, side in (("mmtok", platform_steps), ("loop", bare_steps)):
                run = dataclasses.replace(config, run_dir=str(folder / f"{name}-{round_}"))
                sides[name] += side(run, build_module(run), Path(run.run_dir))[5:]
        first = time_to_first_step(args.recipe, Path(shards), folder / "first")
    medians = {name: statistics.median(seconds) for name, seconds in sides.items()}
    result = {"recipe": args.recipe, **medians, "ratio": medians["mmtok"] / medians["loop"], "first_step_s": first}
    print(f"{args.recipe}: mmtok {medians['mmtok']:.4f} s, bare loop {medians['loop']:.4f} s a step (medians of")
    print(f"{len(sides['loop'])}); ratio {result['ratio']:.3f} (goal 1.10). A one-step run takes {first:.1f} s in all.")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


def fixture(folder: Path) -> str:
    """The committed pictures as a shard set."""
    from datamodules.build import build_shards

    build_shards("fixture", folder / "shards")
    return str(folder / "shards" / "train")


if __name__ == "__main__":
    main()
