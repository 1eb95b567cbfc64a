"""What every discriminator is: signals in, maps of logits out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

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


class Discriminator(nn.Module):
    """Signals (B, C, ...) in [-1, 1] -> logits (B, 1, ...), one of each patch it sees: high where that looks real.

    What it makes of one item must not depend on the others of the batch, and a forward must write no state: real and
    reconstructed items go through it together, on every rank its own (image.md trap 19). So no BatchNorm.
    """

    config: DiscriminatorConfig

    def forward(self, x: Tensor) -> Tensor:
        """Logits of each patch."""
        raise NotImplementedError


discriminators: Registry[DiscriminatorConfig, Discriminator] = Registry("discriminator", DiscriminatorConfig)
register_discriminator = discriminators.register
