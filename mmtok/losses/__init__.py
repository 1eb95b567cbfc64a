"""Terms of the objective, behind one registry."""

from mmtok.losses import classifier, likelihood, perceptual, reconstruction, semantic, spectral  # noqa: F401, they register
from mmtok.losses.base import Loss, LossConfig, losses, register_loss

__all__ = ["Loss", "LossConfig", "losses", "register_loss"]
