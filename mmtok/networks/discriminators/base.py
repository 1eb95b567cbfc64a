"""What every discriminator is: signals in, maps of logits out, with the features they were made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from torch import Tensor, nn

from mmtok.registry import Registry


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Fields every discriminator has."""

    in_channels: int = 0
    """Channels of the signal. Filled in from the tokenizer; 0 until then."""

    def filled(self, in_channels: int) -> Self:
        """The config with the tokenizer's channels.

        Raises:
            ValueError: other channels were given already.
        """
        if self.in_channels not in (0, in_channels):
            raise ValueError(
                f"discriminator.in_channels={self.in_channels} does not fit the tokenizer's {in_channels}. "
                "Leave it out."
            )
        return replace(self, in_channels=in_channels)


class Verdict(NamedTuple):
    """What a discriminator says. A discriminator of several parts gives one entry each."""

    logits: tuple[Tensor, ...]
    """Maps (B, 1, ...), one value of each patch a part sees: high where that looks real."""
    features: tuple[tuple[Tensor, ...], ...]
    """The activations (B, C', ...) between the layers of each part, for feature matching."""

    def halves(self) -> tuple[Verdict, Verdict]:
        """The verdicts on the first and on the second half of the batch."""
        first, second = zip(*(logits.chunk(2) for logits in self.logits), strict=True)
        pairs = [[layer.chunk(2) for layer in part] for part in self.features]
        return (
            Verdict(first, tuple(tuple(pair[0] for pair in part) for part in pairs)),
            Verdict(second, tuple(tuple(pair[1] for pair in part) for part in pairs)),
        )


class Discriminator(nn.Module):
    """Signals (B, C, ...) in [-1, 1] -> Verdict.

    What it makes of one item must not depend on the others of the batch, and a forward must write no state: real and
    reconstructed items go through it together, on every rank its own (image.md trap 19). So no BatchNorm.
    """

    config: DiscriminatorConfig

    def forward(self, x: Tensor) -> Verdict:
        """Logits of each patch, and features."""
        raise NotImplementedError


def run_layers(layers: Iterable[nn.Module], x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """One part in order -> the last layer's result, which is the logits, and what each activation gave."""
    features = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, nn.LeakyReLU):
            features.append(x)
    return x, tuple(features)


discriminators: Registry[DiscriminatorConfig, Discriminator] = Registry("discriminator", DiscriminatorConfig)
register_discriminator = discriminators.register
