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

from mmtok.losses.adversarial import DISCRIMINATOR, GENERATOR, LeCAM, feature_distance
from mmtok.networks.discriminators import Verdict, discriminators
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
        """Whether the discriminator learns in this update: the same on every rank (audio.md trap 5)."""
        if step < self.config.first_step:
            return False
        return self.config.share == 1 or draw_share(self.config.share, step)

    def ramp(self, step: int) -> float:
        """Share of the generator's weights that counts in this update: 0, then a ramp, then 1."""
        since = step - self.config.start
        return 0.0 if since < 0 else min(1.0, (since + 1) / max(1, self.config.warmup_steps))

    def judge(self, x: Tensor, fake: Tensor, step: int, pull: Tensor, last_layer: Tensor) -> Judgement:
        """Both sides' terms for one batch.

        Args:
            x: the signals, (B, C, ...) in [-1, 1].
            fake: their reconstructions, with their graph.
            step: the update, from 0.
            pull: the weighted reconstruction terms, which an adaptive weight is measured against.
            last_layer: weight of the decoder's last layer, where it is measured.
        """
        scalars: dict[str, Tensor | float] = {}
        # A half-precision decoder must not round the signals it is compared with: autocast casts where it is safe.
        x, fake = x.float(), fake.float()
        discriminator, real = None, None
        if self.learns(step):
            # Both halves in one pass, so that nothing the first writes can meet the other's graph (image.md trap 19).
            real, judged = self.discriminator(torch.cat([x, fake.detach()])).halves()
            discriminator = self._discriminator_term(real, judged, scalars)
        ramp = self.ramp(step)
        if not ramp or not (self.config.weight or self.config.feature_weight):
            return Judgement(None, discriminator, scalars)
        with frozen(self.discriminator):
            verdict = self.discriminator(fake)
        generator = self._generator_term(verdict, ramp, pull, last_layer, scalars)
        if self.config.feature_weight:
            distance = feature_distance(
                self._features(x, real), verdict.features, relative=self.config.feature_norm == "relative"
            )
            scalars["adversary/features"] = distance
            generator = generator + ramp * self.config.feature_weight * distance
        return Judgement(generator, discriminator, scalars)

    def _generator_term(
        self, verdict: Verdict, ramp: float, pull: Tensor, last_layer: Tensor, scalars: dict[str, Tensor | float]
    ) -> Tensor:
        objective = GENERATOR[self.config.generator_objective or self.config.objective]
        term = torch.stack([objective(logits.float()) for logits in verdict.logits]).mean()
        factor: Tensor | float = ramp * self.config.weight
        if self.config.adaptive:
            factor = factor * adaptive_weight(pull, term, last_layer, self.config.adaptive_max)
        scalars |= {"adversary/generator": term, "adversary/weight": factor}
        return factor * term

    def _discriminator_term(self, real: Verdict, fake: Verdict, scalars: dict[str, Tensor | float]) -> Tensor:
        objective = DISCRIMINATOR[self.config.objective]
        pairs = [(a.float(), b.float()) for a, b in zip(real.logits, fake.logits, strict=True)]
        loss = torch.stack([objective(a, b) for a, b in pairs]).mean()
        reals, fakes = (torch.cat([logits.flatten() for logits in side]) for side in zip(*pairs, strict=True))
        scalars |= {"adversary/loss": loss, "adversary/real": reals.mean(), "adversary/fake": fakes.mean()}
        if self.lecam is not None:
            regular = self.lecam(reals, fakes)
            scalars["adversary/lecam"] = regular
            loss = loss + self.config.lecam * regular
            self._stats = merge_stats(self._stats, self.lecam.stats(reals, fakes))
        return loss

    def _features(self, x: Tensor, real: Verdict | None) -> list[list[Tensor]]:
        """Activations on the signals: those the discriminator learned from in this batch, where it did."""
        if real is None:
            with torch.no_grad():
                real = self.discriminator(x)
        return [[layer.detach() for layer in part] for part in real.features]

    def update(self) -> None:
        """What changes with an optimiser step beside the weights: LeCAM's averages, by one collective."""
        if self.lecam is not None and self._stats:
            self.lecam.update(self._stats)
        self.forget()

    def forget(self) -> None:
        """Drop what accumulated batches have left."""
        self._stats = {}


def check_discriminator(config: AdversaryConfig, in_channels: int, shape: tuple[int, ...]) -> None:
    """Refuse signals the discriminator cannot judge, before anything is trained: on the meta device, at no cost.

    Args:
        config: what the recipe says.
        in_channels: of the signals.
        shape: of one in training, without its channels: (height, width) or (samples,).

    Raises:
        ConfigError: a signal is too small for its layers, or of another kind.
    """
    with torch.device("meta"):
        discriminator = discriminators.build(config.discriminator.filled(in_channels))
        try:
            discriminator(torch.zeros(2, in_channels, *shape))
        except (RuntimeError, ValueError) as error:
            remedy = (
                "they are too small for its layers, or it is made for another modality. "
                "Lower its depth, or train on larger items."
            )
            said = error if isinstance(error, ConfigError) else remedy  # ours, or torch's
            size = " x ".join(map(str, shape))
            raise ConfigError(f"adversary.discriminator cannot judge training items of {size}: {said}") from error


def draw_share(share: float, step: int) -> bool:
    """Whether an update is one of the share that counts: a draw from its number."""
    return torch.rand((), generator=torch.Generator().manual_seed(step)).item() < share


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
    with torch.autocast(last_layer.device.type, enabled=False):  # as the backward pass
        gradients = [torch.autograd.grad(term, last_layer, retain_graph=True)[0].float() for term in (pull, push)]
    pulls, pushes = mean_over_ranks(torch.stack(gradients)).flatten(1).norm(dim=1)
    return (pulls / (pushes + _TINY)).clamp(0.0, most).detach()
