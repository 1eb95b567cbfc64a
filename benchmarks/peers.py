"""A plugin: the quantizers of `vector-quantize-pytorch` under this platform's contract, for a comparison in one recipe.

`plugins: [benchmarks.peers]` registers `peer_vq`, `peer_rq`, `peer_fsq`, `peer_lfq`. The defaults are the best settings
found for each on CIFAR-10 at 10 bits a position. Unlike ours they change state in `forward`, in training mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, LFQ, ResidualVQ, VectorQuantize

from mmtok.quantizers.base import Context, Quantized, Quantizer, QuantizerConfig, register_quantizer


@dataclass(frozen=True)
class PeerVQConfig(QuantizerConfig):
    codebook_size: int = 1024
    """Codes."""
    code_dim: int = 0
    """Channels of the codes; 0 is `dim`."""
    l2: bool = False
    """Cosine similarity."""
    kmeans: bool = True
    """Initialise from the first batch."""
    decay: float = 0.95
    """Of the codebook's moving average."""
    dead_below: float = 2.0
    """EMA count under which a code is replaced; 0 never."""
    commitment_weight: float = 1.0
    """Weight of the distance that pulls latents to codes."""
    rotation: bool = False
    """Carry gradients through by rotation instead of straight through."""


@dataclass(frozen=True)
class PeerRQConfig(PeerVQConfig):
    codebook_size: int = 32
    depth: int = 2
    """Levels."""


@dataclass(frozen=True)
class PeerFSQConfig(QuantizerConfig):
    levels: tuple[int, ...] = (8, 8, 4, 4)
    """Grid points of each channel."""


@dataclass(frozen=True)
class PeerLFQConfig(QuantizerConfig):
    bits: int = 10
    """Binary channels."""
    entropy_weight: float = 0.01
    """Factor of the entropy terms."""
    commitment_weight: float = 0.0
    """Weight of the distance that pulls latents to codes."""
    spherical: bool = True
    """Normalise the latents onto the sphere through the codes (BSQ)."""


class Peer(Quantizer):
    """What the four share: one call that gives values, ids and a scalar loss."""

    def __init__(self, config: QuantizerConfig, inner: nn.Module, codebook_sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.config = config
        self.inner = inner
        self.codebook_sizes = codebook_sizes

    def quantize(self, z: Tensor, context: Context) -> Quantized:
        values, ids, *rest = self.inner(z)
        ids = ids[..., None] if ids.ndim == 2 else ids
        loss = rest[0].sum() if rest else z.new_zeros(())
        stats = {
            f"{level}.counts" if len(self.codebook_sizes) > 1 else "counts": torch.bincount(
                ids[..., level].flatten(), minlength=size
            )
            for level, size in enumerate(self.codebook_sizes)
        }
        return Quantized(values, ids.movedim(-1, 1).long(), {"quantizer": loss}, stats)

    def dequantize(self, ids: Tensor, context: Context) -> Tensor:
        ids = ids.movedim(1, -1)
        if isinstance(self.inner, FSQ | LFQ):
            return self.inner.indices_to_codes(ids[..., 0])
        return self.inner.get_output_from_indices(ids if ids.shape[-1] > 1 else ids[..., 0])


@register_quantizer("peer_vq", PeerVQConfig)
class PeerVQ(Peer):
    def __init__(self, config: PeerVQConfig) -> None:
        inner = VectorQuantize(
            config.dim,
            config.codebook_size,
            codebook_dim=config.code_dim or None,
            use_cosine_sim=config.l2,
            kmeans_init=config.kmeans,
            decay=config.decay,
            threshold_ema_dead_code=config.dead_below,
            commitment_weight=config.commitment_weight,
            rotation_trick=config.rotation,
        )
        super().__init__(config, inner, (config.codebook_size,))


@register_quantizer("peer_rq", PeerRQConfig)
class PeerRQ(Peer):
    def __init__(self, config: PeerRQConfig) -> None:
        inner = ResidualVQ(
            dim=config.dim,
            num_quantizers=config.depth,
            codebook_size=config.codebook_size,
            codebook_dim=config.code_dim or None,
            use_cosine_sim=config.l2,
            kmeans_init=config.kmeans,
            decay=config.decay,
            threshold_ema_dead_code=config.dead_below,
            commitment_weight=config.commitment_weight,
            rotation_trick=config.rotation,
        )
        super().__init__(config, inner, (config.codebook_size,) * config.depth)


@register_quantizer("peer_fsq", PeerFSQConfig)
class PeerFSQ(Peer):
    def __init__(self, config: PeerFSQConfig) -> None:
        inner = FSQ(list(config.levels), dim=config.dim)
        super().__init__(config, inner, (inner.codebook_size,))


@register_quantizer("peer_lfq", PeerLFQConfig)
class PeerLFQ(Peer):
    def __init__(self, config: PeerLFQConfig) -> None:
        inner = LFQ(
            dim=config.dim,
            codebook_size=2**config.bits,
            entropy_loss_weight=config.entropy_weight,
            commitment_loss_weight=config.commitment_weight,
            spherical=config.spherical,
        )
        super().__init__(config, inner, (2**config.bits,))
