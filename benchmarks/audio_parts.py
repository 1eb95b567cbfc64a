"""For `benchmarks.audio`: seconds of each frame of a stream, and of each part of an adversarial update."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from typing import Any

import torch

from mmtok.config import load_config
from mmtok.losses.base import Loss, Outcome
from mmtok.tokenizers import build_tokenizer
from mmtok.tokenizers.audio import AudioTokenizer
from mmtok.training.draws import draw_levels
from mmtok.training.module import TokenizerModule
from mmtok.training.optim import gradient_norm, update_average
from mmtok.training.run import build_module

LATENCY = ("audio/demo", "audio/soundstream", "audio/encodec_24k")
"""Recipes that stream."""
TRAINED = "audio/encodec_24k"
_WARM = 20
"""Frames before the clock counts: reflected padding waits for its first ones, and caches fill."""


@torch.inference_mode()
def frame_times(recipe: str, frames: int) -> dict[str, Any]:
    """Seconds of each frame of a stream, taken in, encoded at all levels, decoded and given out: in turn as built and
    optimised, whose frames are then of the same moments.
    """
    config = load_config([recipe], []).config
    torch.manual_seed(0)
    tokenizer = build_tokenizer(config.tokenizer, config.quantizer).eval().requires_grad_(False)
    assert isinstance(tokenizer, AudioTokenizer)
    hop, rate = tokenizer.networks.downsample, tokenizer.config.sample_rate
    streams = {"as loaded": tokenizer.streaming(), "optimize()": tokenizer.optimize().streaming()}
    times: dict[str, list[float]] = {name: [] for name in streams}
    for number in range(frames + _WARM):
        x = (0.3 * torch.randn(1, tokenizer.config.channels, hop)).clamp(-1, 1)
        for name, stream in streams.items():
            began = time.perf_counter()
            stream.decode(stream.encode(x))
            if number >= _WARM:
                times[name].append(time.perf_counter() - began)
    return {"frame": hop / rate, "levels": len(tokenizer.spec.codebook_sizes), "times": times}


def training_parts(recipe: str, batch: int, steps: int) -> dict[str, Any]:
    """Seconds of each part of some updates in which both sides learn, without the trainer around them."""
    config = load_config([recipe], [f"data.batch_size={batch}"]).config
    assert config.adversary is not None
    awake = dataclasses.replace(config.adversary, start=0, lead=0, warmup_steps=0, share=1.0)
    module = build_module(dataclasses.replace(config, adversary=awake)).train()
    generator, judges = module.configure_optimizers()
    rate = module.tokenizer.spec.sample_rate or 0
    times: dict[str, list[float]] = defaultdict(list)
    for step in range(steps + 1):
        x = (0.1 * torch.randn(batch, module.tokenizer.spec.channels, rate)).clamp(-1, 1)
        clock = Clock(times if step else defaultdict(list))  # the first warms up
        _update(module, generator, judges, x, step, clock)
    return {"seconds": float(batch), "times": dict(times)}


class Clock:
    """Seconds since it was last asked, by the name of what took them."""

    def __init__(self, times: dict[str, list[float]]) -> None:
        self.times, self.last = times, time.perf_counter()

    def stop(self, part: str) -> None:
        now = time.perf_counter()
        self.times[part].append(now - self.last)
        self.last = now


def _update(
    module: TokenizerModule,
    generator: torch.optim.Optimizer,
    judges: torch.optim.Optimizer,
    x: torch.Tensor,
    step: int,
    clock: Clock,
) -> None:
    """The arithmetic of `TokenizerModule.training_step`, with a clock between its parts."""
    tokenizer, adversary, optim = module.tokenizer, module.adversary, module.config.optim
    assert adversary is not None
    levels = draw_levels(tokenizer.quantizer, 0, step, len(x), rank=0, world=1, part=slice(0, len(x)))
    out = tokenizer(x, levels=levels, seed=step)
    clock.stop("generator, forward")
    outcome = Outcome(out.x, x, None, out.quantized.first)
    terms = []
    for term in module.terms.values():
        assert isinstance(term, Loss)
        terms.append(term.config.weight * term.measure(outcome))
    pull = torch.stack([*terms, *out.quantized.losses.values()]).sum()
    clock.stop("losses of the signal, forward")
    judged = adversary.judge(x, out.x, step, pull, tokenizer.networks.last_layer)
    assert judged.generator is not None
    assert judged.discriminator is not None
    clock.stop("discriminator, forward (real and fake, then fake for the generator) and feature matching")
    (pull + judged.generator + judged.discriminator).backward()
    clock.stop("backward, all of it")
    gradient_norm(tokenizer.parameters(), optim.clip)
    gradient_norm(adversary.parameters(), optim.clip)
    for optimizer in (generator, judges):
        optimizer.step()
        optimizer.zero_grad()
    tokenizer.quantizer.update(out.quantized.stats)
    if module.ema is not None:
        update_average(module.ema, tokenizer, optim.ema, step)
    adversary.update()
    clock.stop("both optimisers, codebooks, average")
