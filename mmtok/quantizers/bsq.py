"""Binary spherical quantization: signs of a latent on the unit sphere, so that what rounding costs is bounded.

Zhao et al. 2024, "Image and Video Tokenization with Binary Spherical Quantization" (arXiv 2406.07548). Beside `lfq` the
corners are at 1 / sqrt(d), and the entropy of the mean is taken in groups of bits: an upper bound of that of whole
codes, which leaves groups free to repeat each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmtok.quantizers.base import register_quantizer
from mmtok.quantizers.bits import Bits, BitsConfig


@dataclass(frozen=True)
class BSQConfig(BitsConfig):
    label: ClassVar[str] = "bsq"

    temperature: float = 0.01
    """Softness of the assignment in the entropies: minus squared distances over it are the logits (the authors' inverse
    temperature is 100)."""
    group_size: int = 9
    """Bits of which the entropy of the mean is taken together. 0 takes all of them, exactly, as `lfq` does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.group_size < 0:
            raise ValueError(f"bsq.group_size must be 0 (all bits) or more, got {self.group_size}")


@register_quantizer("bsq", BSQConfig)
class BSQ(Bits):
    """Corners on the unit sphere."""

    def __init__(self, config: BSQConfig) -> None:
        super().__init__(config)
        self.config: BSQConfig = config
        self.side = config.bits**-0.5

    def _groups(self) -> tuple[int, ...]:
        bits, size = self.config.bits, min(self.config.group_size or self.config.bits, self.config.bits)
        return (size,) * (bits // size) + ((bits % size,) if bits % size else ())
