"""The adversary: a discriminator, what it costs both sides, and when it counts. The training module runs the step.

One forward of the generator serves both sides, and both gradients are taken at the same weights: the discriminator is
frozen while the generator is judged, the reconstruction is detached while the discriminator learns, and one backward
pass carries both, so that DDP reduces each gradient once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmtok.losses.adversarial import DISCRIMINATOR, GENERATOR, LeCAM
from mmtok.networks.discriminators import discriminators
from mmtok.reduce import mean_over_ranks, merge_stats
from mmtok.schema import ConfigError
from mmtok.training.settings import AdversaryConfig

_TINY = 1e-4
"""Added to the gradient an adaptive weight divides by, as in taming."""


class Judgement(NamedTuple):
    """What the adversary adds to one batch."""

    generator: Tensor | None
    """Weighted term of the generator, or None while it is not judged."""
    discriminator: Tensor | None
    """Loss of the discriminator, or None while it does not learn."""
    scalars: dict[str, Tensor | float]
    """For the log."""


class Adversary(nn.Module):
    """A discriminator with its schedule and the state of its regulariser.

    Args:
        config: what the recipe says.
        in_channels: of the signals.
    """

    def __init__(self, config: AdversaryConfig, in_channels: int) -> None:
        super().__init__()
        self.config = config
        self.discriminator = discriminators.build(config.discriminator.filled(in_channels))
        self.lecam = LeCAM(config.lecam_decay) if config.lecam else None
        self._stats: dict[str, Tensor] = {}

    def learns(self, step: int) -> bool:
        """Whether the discriminator learns in this update."""
        return step >= self.config.first_step

    def weight(self, step: int) -> float:
        """Weight of the generator's term in this update: 0, then a ramp, then the configured one."""
        since = step - self.config.start
        if since < 0:
            return 0.0
        return self.config.weight * min(1.0, (since + 1) / max(1, self.config.warmup_steps))

    def judge(self, x: Tensor, fake: Tensor, step: int, pull: Tensor, last_layer: Tensor) -> Judgement:
        """Both sides' terms for one batch.

        Args:
            x: the signals, (B, C, ...) in [-1, 1].
            fake: their reconstructions, with their graph.
            step: the update, from 0.
            pull: the weighted reconstruction terms, which an adaptive weight is measured against.
            last_layer: weight of the decoder's last layer, where it is measured.
        """
        generator, scalars = None, dict[str, Tensor | float]()
        weight = self.weight(step)
        if weight > 0:
            with frozen(self.discriminator):
                wanted = self.config.generator_objective or self.config.objective
                term = GENERATOR[wanted](self.discriminator(fake).float())
            scalars["adversary/generator"] = term
            factor: Tensor | float = weight
            if self.config.adaptive:
                factor = weight * adaptive_weight(pull, term, last_layer, self.config.adaptive_max)
            scalars["adversary/weight"] = factor
            generator = factor * term
        if not self.learns(step):
            return Judgement(generator, None, scalars)
        # Both halves in one pass, so that nothing the first writes can meet the other's graph (image.md trap 19).
        logits = self.discriminator(torch.cat([x.to(fake.dtype), fake.detach()])).float()
        real, judged = logits.chunk(2)
        loss = DISCRIMINATOR[self.config.objective](real, judged)
        scalars |= {"adversary/loss": loss, "adversary/real": real.mean(), "adversary/fake": judged.mean()}
        if self.lecam is not None:
            regular = self.lecam(real, judged)
            scalars["adversary/lecam"] = regular
            loss = loss + self.config.lecam * regular
            self._stats = merge_stats(self._stats, self.lecam.stats(real, judged))
        return Judgement(generator, loss, scalars)

    def update(self) -> None:
        """What changes with an optimiser step beside the weights: LeCAM's averages, by one collective."""
        if self.lecam is not None and self._stats:
            self.lecam.update(self._stats)
        self.forget()

    def forget(self) -> None:
        """Drop what accumulated batches have left."""
        self._stats = {}


def check_discriminator(config: AdversaryConfig, in_channels: int, size: int) -> None:
    """Refuse pictures the discriminator cannot judge, before anything is trained: on the meta device, at no cost.

    Args:
        config: what the recipe says.
        in_channels: of the pictures.
        size: their side in training.

    Raises:
        ConfigError: a picture is too small for its layers.
    """
    with torch.device("meta"):
        discriminator = discriminators.build(config.discriminator.filled(in_channels))
        try:
            discriminator(torch.zeros(2, in_channels, size, size))
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"adversary.discriminator is too deep for pictures of {size} pixels. Lower "
                "adversary.discriminator.layers, or train on larger pictures."
            ) from error


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Parameters take no part in the graphs made inside; those made before or after are as they were."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def adaptive_weight(pull: Tensor, push: Tensor, last_layer: Tensor, most: float) -> Tensor:
    """Factor that makes the adversary's gradient as long as the reconstruction's, at the decoder's last layer.

    Esser et al. 2021, taming-transformers (arXiv 2012.09841, eq. 7). The gradients are averaged over ranks before they
    are measured, by one collective: the factor is that of the global batch, and the same everywhere.

    Args:
        pull: the reconstruction terms.
        push: the adversary's term.
        last_layer: weight of the last layer.
        most: the factor is at most this.
    """
    gradients = [torch.autograd.grad(term, last_layer, retain_graph=True)[0].float() for term in (pull, push)]
    pulls, pushes = mean_over_ranks(torch.stack(gradients)).flatten(1).norm(dim=1)
    return (pulls / (pushes + _TINY)).clamp(0.0, most).detach()
