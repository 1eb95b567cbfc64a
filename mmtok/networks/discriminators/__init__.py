"""Discriminators: networks that judge whether a signal is real, behind one registry."""

from mmtok.networks.discriminators import ensemble, multiband, patchgan, period, scale, stft  # noqa: F401, they register
from mmtok.networks.discriminators.base import (
    Discriminator,
    DiscriminatorConfig,
    Verdict,
    discriminators,
    register_discriminator,
)

__all__ = ["Discriminator", "DiscriminatorConfig", "Verdict", "discriminators", "register_discriminator"]
