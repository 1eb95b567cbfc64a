"""Terms of the objective, behind one registry."""

from mmtok.losses import reconstruction  # noqa: F401, registers
from mmtok.losses.base import Loss, LossConfig, losses, register_loss

__all__ = ["Loss", "LossConfig", "losses", "register_loss"]
