"""Mistakes in what a quantizer is given: refused in one line, and nothing looked at where that would cost."""

import pytest
import torch

from mmtok.quantizers import build_quantizer
from mmtok.schema import ConfigError


def ids_of(*rows):
    return torch.tensor(rows)[None]


@pytest.mark.parametrize(
    ("block", "size"),
    [
        ({"name": "vq", "codebook_size": 16}, 16),
        ({"name": "fsq", "levels": [4, 4]}, 16),
        ({"name": "lfq", "bits": 4}, 16),
        ({"name": "gumbel", "codebook_size": 16}, 16),
        ({"name": "multiscale", "codebook_size": 16, "scales": [1]}, 16),
    ],
)
def test_ids_outside_the_codebook_are_refused_and_minus_one_is_no_code(block, size):
    quantizer = build_quantizer(block, dim=8).eval()
    for wrong in (size, -2):
        with pytest.raises(ValueError, match=rf"ids of level 0 hold {wrong}, outside 0 \.\. {size - 1}"):
            quantizer.decode(ids_of([0, wrong]), grid=(1, 2))
    if quantizer.pointwise:
        assert (quantizer.decode(ids_of([3, -1]))[0, 1] == 0).all()


def test_the_level_that_holds_a_wrong_id_is_named():
    quantizer = build_quantizer("rq", dim=8, codebook_size=16, depth=3).eval()
    with pytest.raises(ValueError, match="ids of level 1 hold 99"):
        quantizer.decode(ids_of([0, 1], [0, 99], [0, 1]))


def test_ids_of_another_shape_are_refused():
    vq = build_quantizer("vq", dim=8, codebook_size=16).eval()
    with pytest.raises(ValueError, match=r"ids have 3 levels, but this quantizer has 1"):
        vq.decode(ids_of([0], [0], [0]))
    with pytest.raises(ValueError, match=r"whole numbers \(B, L, T\).*float32"):
        vq.decode(torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match=r"ids\[:, None\]"):
        vq.decode(torch.zeros(1, 2, dtype=torch.int64))
    rq = build_quantizer("residual", dim=8, inner={"name": "pq", "codebook_size": 4}, depth=3).eval()
    with pytest.raises(ValueError, match="ids have 3 levels, but this quantizer takes 2, 4, 6"):
        rq.decode(ids_of([0], [0], [0]))


def test_levels_are_one_number_an_item_or_an_int_and_in_their_range():
    rq = build_quantizer("rq", dim=8, codebook_size=16, depth=3).eval()
    z = torch.randn(2, 5, 8)
    assert torch.equal(rq.encode(z, levels=2), rq.encode(z, levels=torch.tensor([2, 2])))
    for wrong in (0, 4, torch.tensor([1, 4]), torch.tensor([0, 1])):
        with pytest.raises(ValueError, match="levels to keep from 1 to 3"):
            rq.encode(z, levels=wrong)
    for wrong in (torch.tensor(2), torch.tensor([1.0, 2.0]), torch.tensor([1, 2, 3])):
        with pytest.raises(ValueError, match=r"whole numbers \(2,\), one an item"):
            rq.encode(z, levels=wrong)


def test_latents_of_another_shape_are_refused():
    vq = build_quantizer("vq", dim=8, codebook_size=16)
    for wrong in (torch.randn(2, 5, 7), torch.randn(5, 8), torch.randn(2, 8, 4, 4)):
        with pytest.raises(ValueError, match=r"\(B, T, D\) with D = dim = 8"):
            vq(wrong)


def test_latents_that_are_not_finite_do_not_become_an_index_of_fsq():
    for project in (True, False):
        fsq = build_quantizer("fsq", dim=4, levels=[8, 5, 5, 5], project=project)
        z = torch.randn(1, 3, 4)
        z[0, 1, 2] = torch.nan
        with pytest.raises(ValueError, match="not finite"):
            fsq(z)
        masked = fsq(z, torch.tensor([[True, False, True]]))  # what is padding may hold anything
        assert masked.values.isfinite().all()


def test_no_value_is_looked_at_under_a_compiler():
    def decode(ids):
        return vq.decode(ids)

    vq = build_quantizer("vq", dim=8, codebook_size=16).eval()
    traced = torch.compile(decode, fullgraph=True, backend="eager")
    torch.testing.assert_close(traced(ids_of([0, 3])), vq.decode(ids_of([0, 3])))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "vq", "dim": 0}, "dim=0 must be 1 or more"),
        ({"name": "vq", "commitment_weight": -1}, "commitment_weight=-1.0 would reward"),
        ({"name": "lfq", "entropy_weight": float("nan")}, "entropy_weight=nan is no finite number"),
        ({"name": "gumbel", "kl_weight": -0.1}, "kl_weight=-0.1"),
        ({"name": "ibq", "temperature": float("inf")}, "temperature=inf"),
        ({"name": "rq", "codebook_size": 4, "depth": 2, "beam": 17}, "beam=17 is more than the 16 paths"),
        ({"name": "split", "bypass": float("nan")}, "bypass=nan"),
    ],
)
def test_fields_that_no_quantizer_can_have_are_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        build_quantizer({"dim": 8} | fields)


def test_blending_without_restarts_is_told():
    with pytest.warns(UserWarning, match=r"restart_policy=blend moves nothing .* restart=0\.001"):
        build_quantizer("vq", dim=8, restart_policy="blend")
