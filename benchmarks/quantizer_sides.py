"""The sides of `benchmarks.quantizers`: quantizers of the registry, and what `vector-quantize-pytorch` has like them.

Both get the same options: codes of full dimension, averages of 0.99, no l2, no restarts, commitment 0.25. Where the
peer has nothing of the kind there is no peer; where what it has is near but not the same, `about` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import vector_quantize_pytorch as peers
from torch import nn

from mmtok.quantizers import build_quantizer

PLAIN: dict[str, Any] = {
    "decay": 0.99, "rotation_trick": False, "commitment_weight": 0.25, "threshold_ema_dead_code": 0,
    "kmeans_init": False, "use_cosine_sim": False,
}  # fmt: skip
"""What makes the peer's tables of codes those of ours."""


@dataclass(frozen=True)
class Case:
    """A quantizer at a size, and what is asked of it."""

    kind: str
    """One of `SIDES`."""
    rows: int
    """Latents, N."""
    codes: int
    """Codes a level, K."""
    dim: int
    """Channels of a latent, D."""
    depth: int = 1
    """Levels or groups."""
    speed: float | None = 1.0
    """Goal: times faster than the peer, at least."""
    bound: float | None = None
    """Goal: times slower than the bound, at most."""
    memory: float | None = None
    """Goal: share of the peer's extra memory, at most."""

    @property
    def bits(self) -> int:
        """Of a code."""
        return (self.codes - 1).bit_length()

    def __str__(self) -> str:
        levels = f"{self.depth}x" if self.depth > 1 else ""
        return f"{self.kind} N={self.rows} K={levels}{self.codes} D={self.dim}"


@dataclass(frozen=True)
class Sides:
    """How both sides of a kind are made."""

    name: str
    """Of ours, in the registry."""
    ours: Callable[[Case], Mapping[str, Any]]
    """Its fields."""
    peer: Callable[[Case, Mapping[str, Any]], nn.Module] | None = None
    """The peer's, given `PLAIN`, or nothing for its own defaults; None where it has none."""
    searches: bool = False
    """Whether a search is all it does, so that the bound means something."""
    about: str = ""
    """What is not alike."""

    def build(self, case: Case, side: str) -> nn.Module:
        """A side: "ours", "peer", or "default" for the peer as it comes."""
        if side == "ours":
            return build_quantizer(self.name, dim=case.dim, **self.ours(case))
        assert self.peer is not None
        return self.peer(case, PLAIN if side == "peer" else {})


def _table(case: Case, **more: Any) -> dict[str, Any]:
    return {"codebook_size": case.codes, **more}


def _vq(case: Case, options: Mapping[str, Any], **more: Any) -> nn.Module:
    return peers.VectorQuantize(dim=case.dim, codebook_size=case.codes, **{**options, **more})


def _rq(case: Case, options: Mapping[str, Any], **more: Any) -> nn.Module:
    return peers.ResidualVQ(dim=case.dim, codebook_size=case.codes, num_quantizers=case.depth, **{**options, **more})


def _lfq(case: Case, options: Mapping[str, Any], **more: Any) -> nn.Module:
    return peers.LFQ(dim=case.dim, codebook_size=case.codes, entropy_loss_weight=0.1, **more)


def _simvq(case: Case, options: Mapping[str, Any]) -> nn.Module:
    return peers.SimVQ(dim=case.dim, codebook_size=case.codes, **({"rotation_trick": False} if options else {}))


def _grid(case: Case) -> list[int]:
    return [8, 5, 5, 5] if case.codes == 1000 else [8, 8, 4, 4]


SIDES: dict[str, Sides] = {
    "vq": Sides("vq", _table, _vq, searches=True),
    "rotate": Sides(
        "vq", lambda case: _table(case, gradient="rotate"), lambda case, given: _vq(case, given, rotation_trick=True)
    ),
    "rq": Sides("rq", lambda case: _table(case, depth=case.depth), _rq, searches=True),
    "beam": Sides(
        "rq",
        lambda case: _table(case, depth=case.depth, train_beam=4),
        lambda case, given: _rq(case, given, beam_size=4),
        about="four paths",
    ),
    "pq": Sides(
        "pq",
        lambda case: _table(case, groups=case.depth),
        lambda case, given: _vq(
            case, given, heads=case.depth, separate_codebook_per_head=True, codebook_dim=case.dim // case.depth
        ),
    ),
    "fsq": Sides("fsq", lambda case: {"levels": _grid(case)}, lambda case, given: peers.FSQ(_grid(case), dim=case.dim)),
    "lfq": Sides("lfq", lambda case: {"bits": case.bits, "entropy_weight": 0.1}, _lfq),
    "bsq": Sides(
        "bsq",
        lambda case: {"bits": case.bits, "entropy_weight": 0.1, "group_size": 0},
        lambda case, given: _lfq(case, given, spherical=True),
    ),
    "simvq": Sides("simvq", _table, _simvq),
    "gumbel": Sides(
        "gumbel",
        lambda case: _table(case, kl_weight=0.0),
        lambda case, given: _vq(case, given, stochastic_sample_codes=True, straight_through=True, rotation_trick=False),
        about="the peer draws by distances, and learns codes as averages",
    ),
    "ibq": Sides("ibq", _table),
    "multiscale": Sides("multiscale", lambda case: _table(case, scales=[1, 2, 4, 8, 16])),
    "residual fsq": Sides(
        "residual",
        lambda case: {"depth": case.depth, "inner": {"name": "fsq", "levels": _grid(case), "project": False}},
        lambda case, given: peers.ResidualFSQ(dim=case.dim, levels=_grid(case), num_quantizers=case.depth),
    ),
    "product lfq": Sides(
        "product",
        lambda case: {"groups": case.depth, "inner": {"name": "lfq", "bits": case.bits, "entropy_weight": 0.1}},
        lambda case, given: _lfq(case, given, num_codebooks=case.depth),
        about="the peer projects all channels to all groups",
    ),
    "split": Sides(
        "split",
        lambda case: {
            "semantic": {"name": "vq", "codebook_size": case.codes},
            "acoustic": {"name": "rq", "codebook_size": case.codes, "depth": case.depth - 1},
        },
    ),
    "none": Sides("none", lambda case: {}),
}
"""By the kind of a case."""

CPU = (
    Case("vq", 4096, 1024, 64, speed=2.5),
    Case("vq", 4096, 16384, 8, speed=12, bound=1.5, memory=0.1),
    Case("vq", 4096, 16384, 256, speed=4, bound=1.5, memory=0.1),
    Case("rotate", 4096, 1024, 64),
    Case("rq", 4096, 1024, 64, depth=8, speed=3),
    Case("beam", 1024, 1024, 64, depth=4),
    Case("pq", 4096, 1024, 64, depth=4),
    Case("fsq", 4096, 1000, 64),
    Case("lfq", 4096, 2**14, 64, speed=30, memory=0.1),
    Case("bsq", 4096, 2**14, 64),
    Case("simvq", 4096, 1024, 64),
    Case("simvq", 4096, 16384, 64),
    Case("gumbel", 4096, 1024, 64),
    Case("ibq", 4096, 16384, 64, speed=None),
    Case("multiscale", 4096, 1024, 64, speed=None),
    Case("residual fsq", 4096, 1000, 4, depth=4),
    Case("product lfq", 4096, 1024, 64, depth=4),
    Case("split", 4096, 1024, 64, depth=4, speed=None),
    Case("none", 4096, 1, 64, speed=None),
)
CUDA = (
    *CPU,
    Case("vq", 8192, 16384, 8, speed=5, bound=1.5, memory=0.1),
    Case("vq", 8192, 16384, 256, speed=3, bound=1.5, memory=0.1),
    Case("vq", 32768, 16384, 32, speed=5, bound=1.5, memory=0.1),
    Case("vq", 8192, 2**18, 16, speed=5, bound=1.5, memory=0.1),
    Case("lfq", 8192, 2**18, 64, speed=30, memory=0.1),
)
