"""What every registered quantizer must do, and the nested ones that people will build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmtok.quantizers import Quantizer, build_quantizer, quantizer_names
from mmtok.quantizers.base import quantizers
from mmtok.schema import to_plain

DIM = 16
GRID = (4, 5)
"""Of the latents: 20 positions. Most quantizers do not look at it."""
BLOCKS: dict[str, dict[str, Any]] = {name: {"name": name} for name in quantizer_names()} | {
    "vq-gradient": {"name": "vq", "learn": "gradient", "codebook_size": 32},
    "vq-low-l2": {"name": "vq", "code_dim": 4, "l2": True, "codebook_size": 32, "init": "kmeans", "restart": 0.1},
    "vq-low-cosine": {"name": "vq", "code_dim": 4, "cosine": True, "learn": "gradient", "codebook_size": 32},
    "vq-rotate": {"name": "vq", "gradient": "rotate", "codebook_size": 32},
    "vq-low-rotate": {"name": "vq", "gradient": "rotate", "code_dim": 4, "l2": True, "codebook_size": 32},
    "rq-rotate": {"name": "rq", "gradient": "rotate", "depth": 3, "codebook_size": 32},
    "rq-rotate-pass": {"name": "rq", "gradient": "rotate", "depth": 2, "residual_grad": "pass", "codebook_size": 32},
    "pq-rotate": {"name": "pq", "gradient": "rotate", "codebook_size": 32},
    "vq-blend": {"name": "vq", "codebook_size": 32, "restart": 0.1, "restart_policy": "blend"},
    "simvq-low": {"name": "simvq", "code_dim": 4, "codebook_size": 32, "gradient": "rotate", "l2": True},
    "residual-simvq": {"name": "residual", "inner": {"name": "simvq", "codebook_size": 32}, "depth": 2},
    "ibq-low": {
        "name": "ibq",
        "code_dim": 4,
        "codebook_size": 32,
        "l2": True,
        "temperature": 0.3,
        "entropy_weight": 0.1,
        "entropy_temperature": 0.5,
    },
    "residual-ibq": {"name": "residual", "inner": {"name": "ibq", "codebook_size": 32}, "depth": 2},
    "vq-entropy": {"name": "vq", "codebook_size": 32, "entropy_weight": 0.1, "entropy_temperature": 0.5},
    "gumbel-soft": {"name": "gumbel", "codebook_size": 32, "straight": False, "anneal_updates": 2},
    "residual-gumbel": {"name": "residual", "inner": {"name": "gumbel", "codebook_size": 32}, "depth": 2},
    "rq-beam": {"name": "rq", "depth": 3, "codebook_size": 32, "beam": 3, "train_beam": 3},
    "rq-absent": {"name": "rq", "depth": 3, "codebook_size": 32, "dropout": 0.5, "absent": "learned"},
    "rq-pass": {"name": "rq", "depth": 3, "residual_grad": "pass", "codebook_size": 32},
    "fsq-bare": {"name": "fsq", "levels": [2] * DIM, "project": False},
    "residual-fsq": {"name": "residual", "inner": "fsq", "depth": 3, "shrink": 0.25},
    "bsq-groups": {"name": "bsq", "bits": 7, "group_size": 3, "temperature": 0.5, "commitment_weight": 0.1},
    "residual-lfq": {"name": "residual", "inner": {"name": "lfq", "bits": 6}, "depth": 2, "shared": True},
    "product-rq": {"name": "product", "inner": {"name": "rq", "depth": 2, "codebook_size": 16}, "groups": 2},
    "multiscale-gradient": {
        "name": "multiscale",
        "codebook_size": 32,
        "learn": "gradient",
        "scales": [1, 2, 4],
        "mends": 1,
        "entropy_weight": 0.1,
        "entropy_temperature": 0.5,
    },
    "multiscale-rotate": {
        "name": "multiscale",
        "codebook_size": 32,
        "scales": [1, 3],
        "mends": 0,
        "gradient": "rotate",
        "restart": 0.1,
    },
    "split-small": {"name": "split", "acoustic": {"name": "rq", "depth": 2}, "inner_dim": 4, "bypass": 0.5},
    "split-fsq": {"name": "split", "semantic": "fsq", "acoustic": {"name": "vq", "codebook_size": 32}},
    "residual-pq": {"name": "residual", "inner": {"name": "pq", "codebook_size": 16}, "depth": 2},
}
CODED = [name for name in BLOCKS if name != "none"]
"""`none` has no codes, so what is said of decoding does not hold of it: it refuses instead."""

POINTWISE = [name for name in BLOCKS if name != "multiscale" and not name.startswith("multiscale-")]
"""A quantizer that sees whole grids refuses masks, and positions of another number."""

# What a loss term moves: (latents, codebook). A term that moves something else is the swapped beta (image.md trap 1).
MOVES = {
    "commitment": (True, False),
    "codebook": (False, True),
    "index": (True, True),
    "kl": (True, False),
    "sample_entropy": (True, True),
    "codebook_entropy": (True, True),
}


def build(name: str) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(BLOCKS[name], dim=DIM)


@pytest.fixture
def latents() -> torch.Tensor:
    return torch.randn(3, 20, DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask() -> torch.Tensor:
    return torch.arange(20) < torch.tensor([[20], [7], [1]])


@pytest.mark.parametrize("name", CODED)
def test_decoding_the_ids_gives_the_forward_values(name, latents):  # image.md trap 16
    quantizer = build(name).eval()
    out = quantizer(latents, grid=GRID)
    torch.testing.assert_close(quantizer.decode(out.ids, grid=GRID), out.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", BLOCKS)
def test_encode_gives_the_forward_ids_in_their_range(name, latents):
    quantizer = build(name).eval()
    ids = quantizer(latents, grid=GRID).ids
    assert torch.equal(quantizer.encode(latents, grid=GRID), ids)
    assert ids.dtype == torch.int64
    scales = quantizer.scales(GRID) or (GRID,)
    assert ids.shape == (3, len(quantizer.codebook_sizes), sum(height * width for height, width in scales))
    sizes = torch.tensor(quantizer.codebook_sizes, dtype=torch.int64)[None, :, None]
    assert ((ids >= 0) & (ids < sizes)).all()


@pytest.mark.parametrize("name", BLOCKS)
def test_relaxed_latents_are_the_values_but_for_the_rounding(name, latents):
    quantizer = build(name).eval()
    relaxed = quantizer.relax(latents)
    assert relaxed.shape == latents.shape
    if quantizer.straight_through:
        torch.testing.assert_close(relaxed, latents)


def test_a_fine_grid_rounds_nothing_away(latents):
    quantizer = build_quantizer("fsq", dim=DIM, levels=[501] * 2).eval()
    torch.testing.assert_close(quantizer(latents, grid=GRID).values, quantizer.relax(latents), rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", BLOCKS)
def test_straight_through_gradient_is_the_identity_where_claimed(name, latents):
    quantizer = build(name)
    latents.requires_grad_()
    target = torch.randn_like(latents)
    (gradient,) = torch.autograd.grad((quantizer(latents, grid=GRID).values * target).sum(), latents)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().max() > 0
    if quantizer.straight_through:
        torch.testing.assert_close(gradient, target)


def test_the_plain_quantizers_claim_the_identity():
    assert {name for name in quantizer_names() if build(name).straight_through} == {
        "none", "vq", "rq", "pq", "residual", "product", "simvq", "multiscale",
    }  # fmt: skip


@pytest.mark.parametrize("name", BLOCKS)
def test_each_loss_term_moves_what_it_claims_and_nothing_else(name, latents):
    quantizer = build(name)
    latents.requires_grad_()
    codebooks = [value for key, value in quantizer.named_parameters() if key.endswith("codebook")]
    for term, value in quantizer(latents, grid=GRID).losses.items():
        assert value.ndim == 0
        assert torch.isfinite(value)
        found = torch.autograd.grad(value, [latents, *codebooks], retain_graph=True, allow_unused=True)
        moved = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in found]
        assert moved[0] == MOVES[term][0], term
        assert all(hit == MOVES[term][1] for hit in moved[1:]), term


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_autocast_changes_no_id(name, latents):  # image.md traps 11, 14
    quantizer = build(name).eval()
    want = quantizer(latents, grid=GRID)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = quantizer(latents, grid=GRID)
    assert torch.equal(out.ids, want.ids)
    assert out.values.dtype == torch.float32


@pytest.mark.parametrize("name", POINTWISE)
def test_padding_changes_nothing_whatever_it_holds(name, latents, mask):
    quantizer, other = build(name), build(name)
    with_nan = latents.where(mask[..., None], torch.nan).requires_grad_()
    out, want = quantizer(with_nan, mask), other(latents.where(mask[..., None], 7.0), mask)
    assert (out.ids.where(mask[:, None], -1) == out.ids).all()
    assert torch.equal(out.values.where(mask[..., None], 0.0), out.values)
    alone = build(name).eval()(latents[1:2, :7])
    assert torch.equal(out.ids[1:2, :, :7], alone.ids)
    torch.testing.assert_close(out.losses, want.losses)
    torch.testing.assert_close(out.stats, want.stats)
    (gradient,) = torch.autograd.grad(out.values.square().sum() + sum(out.losses.values()), with_nan)
    assert torch.equal(gradient.where(mask[..., None], 0.0), gradient)
    quantizer.update(out.stats)
    other.update(want.stats)
    torch.testing.assert_close(quantizer.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", POINTWISE)
def test_counts_are_the_histogram_of_the_ids(name, latents, mask):
    quantizer = build(name)
    out = quantizer(latents, mask)
    counts = [value for key, value in out.stats.items() if key.rpartition(".")[2] == "counts"]
    assert len(counts) == len(quantizer.codebook_sizes)
    for level, (count, size) in enumerate(zip(counts, quantizer.codebook_sizes, strict=True)):
        ids = out.ids[:, level].flatten()
        assert torch.equal(count.long(), torch.bincount(ids[ids >= 0], minlength=size))


@pytest.mark.parametrize("name", [name for name in BLOCKS if name not in POINTWISE])
def test_whole_grids_refuse_masks(name, latents, mask):
    quantizer = build(name)
    assert not quantizer.pointwise
    with pytest.raises(ValueError, match="takes no mask"):
        quantizer(latents, mask, grid=GRID)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_forward_changes_no_state_and_an_update_no_graph(name, latents):
    quantizer = build(name)
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    out = quantizer(latents.requires_grad_(), grid=GRID)
    again = quantizer(latents, grid=GRID)
    assert torch.equal(out.ids, again.ids)
    torch.testing.assert_close(quantizer.state_dict(), before, rtol=0, atol=0)
    quantizer.update(out.stats)
    (out.values.sum() + sum(out.losses.values())).backward()


@pytest.mark.parametrize("name", BLOCKS)
def test_a_batch_of_one_and_an_empty_batch(name, latents):
    quantizer = build(name)
    one = quantizer(latents[:1], grid=GRID)
    assert torch.equal(one.ids, quantizer(latents, grid=GRID).ids[:1])
    for empty in (latents[:0], latents[:, :0]) if quantizer.pointwise else (latents[:0],):
        out = quantizer(empty, grid=GRID)
        assert out.values.shape == empty.shape
        assert out.ids.shape[0] == empty.shape[0]
        assert all(torch.isfinite(term) for term in out.losses.values())
        quantizer.update(out.stats)
        assert all(torch.isfinite(value).all() for value in quantizer.state_dict().values())


@pytest.mark.parametrize("name", BLOCKS)
def test_the_state_dict_restores_a_trained_quantizer_bit_by_bit(name, latents):
    quantizer, other = build(name), build_quantizer(BLOCKS[name], dim=DIM)
    for _ in range(2):
        quantizer.update(quantizer(latents, grid=GRID).stats)
    other.load_state_dict(quantizer.state_dict())
    for _ in range(2):
        out, want = other(latents, grid=GRID), quantizer(latents, grid=GRID)
        torch.testing.assert_close(
            (out.ids, out.values, out.stats), (want.ids, want.values, want.stats), rtol=0, atol=0
        )
        quantizer.update(want.stats)
        other.update(out.stats)
        torch.testing.assert_close(other.state_dict(), quantizer.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", BLOCKS)
def test_built_on_meta_and_loaded_it_is_the_same(name, latents):  # platform.md 9
    quantizer = build(name)
    quantizer.update(quantizer(latents, grid=GRID).stats)
    with torch.device("meta"):
        empty = build_quantizer(BLOCKS[name], dim=DIM)
    empty.load_state_dict(quantizer.state_dict(), assign=True)
    out, want = empty.eval()(latents, grid=GRID), quantizer.eval()(latents, grid=GRID)
    assert torch.equal(out.ids, want.ids)
    assert torch.equal(out.values, want.values)
    if name != "none":
        assert torch.equal(empty.decode(out.ids, grid=GRID), want.values)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_whole_forward_compiles_to_one_graph(name, latents):
    quantizer = build(name)
    compiled = torch.compile(quantizer, backend="aot_eager", fullgraph=True, dynamic=False)
    try:
        out, want = compiled(latents.requires_grad_(), grid=GRID), quantizer(latents, grid=GRID)
        assert torch.equal(out.ids, want.ids)
        torch.testing.assert_close(out.values, want.values)
        (out.values.sum() + sum(out.losses.values())).backward()
    finally:
        torch.compiler.reset()


class Both(torch.nn.Module):
    """Latents to ids and back, as a program is exported."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ids = self.quantizer.encode(z, grid=GRID)
        return ids, self.quantizer.decode(ids, grid=GRID)


@pytest.mark.parametrize("name", [*(name for name in quantizer_names() if name != "none"), "rq-beam", "rq-rotate"])
def test_an_exported_program_takes_other_sizes_and_holds_no_operator_of_ours(name, latents):
    quantizer = build(name).eval()
    sizes = (
        {0: torch.export.Dim("batch"), 1: torch.export.Dim("positions")}
        if quantizer.pointwise
        else {0: torch.export.Dim("batch")}
    )
    with torch.no_grad():
        program = torch.export.export(Both(quantizer), (latents,), dynamic_shapes=(sizes,), strict=False)
    assert "mmtok" not in str(program.graph)
    other = torch.cat([latents, latents.flip(1)]) if not quantizer.pointwise else latents.repeat(2, 3, 1)
    ids, values = program.module()(other)
    assert torch.equal(ids, quantizer.encode(other, grid=GRID))
    torch.testing.assert_close(values, quantizer.decode(ids, grid=GRID))


@pytest.mark.parametrize("name", BLOCKS)
def test_the_configuration_survives_its_plain_form(name):
    config = build(name).config
    assert quantizers.parse(to_plain(config)) == config
    assert config.dim == DIM


@pytest.fixture(scope="module")
def worlds(two_ranks) -> tuple[Any, Any, Any]:
    """What two gloo ranks saw, and one process with the joined batch. One start for all names."""
    return two_ranks(Path(__file__).with_name("two_ranks.py"))


def test_two_ranks_are_one_process_on_the_joined_batch(worlds):  # image.md traps 3 to 6
    first, second, joined = worlds
    for case, want in joined.items():
        for step, whole in enumerate(want["steps"]):
            ranks = first[case]["steps"][step], second[case]["steps"][step]
            for field in ("ids", "values", "z"):
                found = torch.stack([rank[field] for rank in ranks], 1).flatten(0, 1)
                tolerance = 0 if field == "ids" else 1e-5
                torch.testing.assert_close(found, whole[field], rtol=tolerance, atol=tolerance, msg=f"{case} {field}")
            for field in ("losses", "grads"):
                torch.testing.assert_close(ranks[0][field], whole[field], rtol=1e-5, atol=1e-5, msg=f"{case} {field}")
        torch.testing.assert_close(first[case]["state"], want["state"], rtol=1e-5, atol=1e-5, msg=f"{case} state")


def test_two_ranks_hold_the_same_state_bit_by_bit(worlds):
    first, second, _ = worlds
    for case in first:
        torch.testing.assert_close(first[case]["state"], second[case]["state"], rtol=0, atol=0, msg=str(case))


def test_none_refuses_to_decode():
    with pytest.raises(ValueError, match="'none' has no codes"):
        build("none").decode(torch.empty(1, 0, 4, dtype=torch.int64))
