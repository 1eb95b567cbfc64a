"""Terms of the objective, behind one registry."""

from mmtok.losses import (  # noqa: F401, they register
    classifier,
    contrastive,
    likelihood,
    perceptual,
    reconstruction,
    semantic,
    spectral,
)
from mmtok.losses.base import Loss, LossConfig, losses, register_loss

__all__ = ["Loss", "LossConfig", "losses", "register_loss"]
