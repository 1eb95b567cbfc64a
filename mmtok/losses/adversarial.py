"""Adversarial objectives on logits, high where a signal looks real, and LeCAM's regulariser with its state.

Both sides of each objective stand side by side: the discriminator wants real logits up and those of reconstructions
down, the generator wants the latter up (image.md trap 15 is a peer that had them swapped).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmtok.reduce import reduce_stats

Objective = Literal["hinge", "nonsaturating", "least_squares"]


def hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator: real above 1, fake below -1, and no further (Lim and Ye 2017, arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """Generator against `hinge`: fake up, without bound."""
    return -fake.mean()


def nonsaturating(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator: the binary cross-entropy of real as 1 and fake as 0 (Goodfellow et al. 2014)."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def nonsaturating_generator(fake: Tensor) -> Tensor:
    """Generator: the cross-entropy of fake as 1, whose gradient does not fade where the discriminator is sure."""
    return F.softplus(-fake).mean()


def least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """Discriminator: real at 1, fake at 0 (Mao et al. 2017, arXiv 1611.04076)."""
    return 0.5 * ((1 - real).square().mean() + fake.square().mean())


def least_squares_generator(fake: Tensor) -> Tensor:
    """Generator against `least_squares`: fake at 1."""
    return (1 - fake).square().mean()


DISCRIMINATOR: dict[Objective, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge,
    "nonsaturating": nonsaturating,
    "least_squares": least_squares,
}
"""Objective -> loss of (real, fake) logits."""
GENERATOR: dict[Objective, Callable[[Tensor], Tensor]] = {
    "hinge": hinge_generator,
    "nonsaturating": nonsaturating_generator,
    "least_squares": least_squares_generator,
}
"""Objective -> loss of the fake logits."""

_QUIET = 1e-5
"""Least mean activation that a relative feature distance divides by."""


def feature_distance(
    real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]], *, relative: bool = False
) -> Tensor:
    """How far a discriminator's activations on reconstructions are from those on the signals: the mean over parts, of
    the mean over layers, of the mean absolute difference (Larsen et al. 2016, arXiv 1512.09300).

    Args:
        real: activations (B, C, ...) on the signals, a sequence of layers a part. No gradient is wanted of them.
        fake: the same on the reconstructions.
        relative: each layer's difference is divided by its mean absolute activation on the signals, so that layers
            weigh alike whatever their scale (EnCodec, arXiv 2210.13438).
    """
    parts = []
    for left, right in zip(real, fake, strict=True):
        layers = []
        for a, b in zip(left, right, strict=True):
            assert not a.requires_grad, "the real branch of feature matching carries no gradient"
            distance = (b.float() - a.float()).abs().mean()
            layers.append(distance / a.float().abs().mean().clamp(min=_QUIET) if relative else distance)
        parts.append(torch.stack(layers).mean())
    return torch.stack(parts).mean()


class LeCAM(nn.Module):
    """Holds the discriminator's logits near the moving averages of the other side's.

    Tseng et al. 2021, "Regularizing Generative Adversarial Networks under Limited Data" (arXiv 2104.03310). The
    averages are buffers: they are saved, and follow what all ranks saw (image.md trap 21).
    """

    averages: Tensor
    updates: Tensor

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("averages", torch.zeros(2))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Unweighted term for the discriminator; 0 until the first `update`."""
        average_real, average_fake = self.averages
        term = F.relu(real - average_fake).square().mean() + F.relu(average_real - fake).square().mean()
        return term * (self.updates > 0)

    @staticmethod
    def stats(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What `update` needs, as sums that ranks and accumulated batches add up."""
        sums = torch.stack([real.detach().sum(), fake.detach().sum()])
        return {"logits": sums, "patches": sums.new_full((), real.numel())}

    @torch.no_grad()
    def update(self, stats: Mapping[str, Tensor]) -> None:
        """Move the averages by what all ranks saw in an update: one collective."""
        total = reduce_stats(stats)
        means = total["logits"] / total["patches"]
        # Bias-free from the start: the first update sets the averages.
        rate = torch.where(self.updates > 0, 1 - self.decay, 1.0)
        self.averages.lerp_(means, rate)
        self.updates += 1
