"""Lookup-free quantization: one sign a channel, so that a code of d bits is searched by looking at d numbers.

Yu et al. 2023, "Language Model Beats Diffusion: Tokenizer is Key to Visual Generation" (arXiv 2310.05737). Nothing is
looked up and nothing learned in a codebook; an entropy term keeps the bits decided and the codes in use. Both entropies
are exact and cheap, since the softmax over the corners factorises (`mmtok.quantizers.entropy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mmtok.quantizers.base import register_quantizer
from mmtok.quantizers.bits import Bits, BitsConfig


@dataclass(frozen=True)
class LFQConfig(BitsConfig):
    label: ClassVar[str] = "lfq"


@register_quantizer("lfq", LFQConfig)
class LFQ(Bits):
    """Corners at +-1 a channel."""

    def __init__(self, config: LFQConfig) -> None:
        super().__init__(config)
        self.config: LFQConfig = config
