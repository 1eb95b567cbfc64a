"""A semantic quantizer beside residual levels: same latents, always kept, and what distillation sees."""

import pytest
import torch

from mmtok.quantizers import build_quantizer

DIM, DEPTH = 16, 4


@pytest.fixture
def split():
    torch.manual_seed(0)
    return build_quantizer("split", dim=DIM, acoustic={"name": "rq", "depth": DEPTH - 1, "dropout": 0.5})


@pytest.fixture
def z():
    return torch.randn(5, 12, DIM, generator=torch.Generator().manual_seed(1))


def parts(split, z, i):
    """What part i alone makes of the latents."""
    return split.project_out[i](split.parts[i](split.project_in[i](z)).values)


def test_both_code_the_same_latents_and_their_values_add_up(split, z):
    out = split(z)
    torch.testing.assert_close(out.values, parts(split, z, 0) + parts(split, z, 1))
    torch.testing.assert_close(out.first, parts(split, z, 0))
    assert out.ids.shape == (5, DEPTH, 12)
    assert torch.equal(out.ids[:, :1], split.parts[0](split.project_in[0](z)).ids)
    assert {key.split(".")[0] for key in out.stats} == {"0", "1"}
    assert split.depth == DEPTH
    assert split.codebook_sizes == (1024,) * DEPTH


def test_distillation_moves_the_latents_through_the_semantic_part_alone(split, z):
    z.requires_grad_()
    split(z).first.square().sum().backward()
    assert z.grad.abs().sum() > 0
    assert split.project_in[0].weight.grad is not None
    assert split.project_in[1].weight.grad is None


@pytest.mark.parametrize("acoustic", [{"name": "rq", "depth": 3}, {"name": "fsq"}, {"name": "pq", "codebook_size": 64}])
def test_only_acoustic_levels_are_dropped(acoustic, z):
    torch.manual_seed(0)
    split = build_quantizer("split", dim=DIM, acoustic=acoustic, bypass=0.5).eval()
    whole = split(z)
    for keep in range(1, split.depth + 1):
        levels = torch.tensor([keep, split.depth, 1, keep, split.depth])
        mask = torch.arange(12) < torch.tensor([12, 7, 5, 3, 1])[:, None]
        for given in (None, mask):
            out = split(z, given, levels=levels)
            torch.testing.assert_close(split.decode(out.ids), out.values, rtol=0, atol=1e-6)
            valid = torch.ones_like(mask) if given is None else given
            assert torch.equal(out.ids[:, 0] >= 0, valid)
            assert torch.equal(out.ids[:, 0].where(valid, 0), whole.ids[:, 0].where(valid, 0))
            assert (out.ids[2, 1:] == -1).all()
            torch.testing.assert_close(out.values[2], whole.first[2] * valid[2, :, None])
            assert torch.equal(out.values[1, :7], whole.values[1, :7])


def test_fewer_levels_decode_as_if_the_rest_were_dropped(split, z):
    split.eval()
    ids = split.encode(z)
    for keep in range(1, DEPTH + 1):
        want = split(z, levels=torch.full((5,), keep)).values
        torch.testing.assert_close(split.decode(ids[:, :keep]), want, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"ids have 0 levels, but this quantizer takes 1 to 4: 1 semantic"):
        split.decode(ids[:, :0])


def test_levels_are_drawn_for_acoustic_ones_and_passes_beside_them():
    def draws(**fields):
        block = {"name": "rq", "depth": 3, "dropout": fields.pop("dropout", 0.0)}
        return build_quantizer("split", dim=DIM, acoustic=block, **fields).draw_levels(
            4000, torch.Generator().manual_seed(0)
        )

    assert draws() is None
    assert sorted(draws(dropout=1.0).unique().tolist()) == [2, 3, 4]
    assert draws(bypass=0.5).unique().tolist() == [0, 4]
    both = draws(bypass=0.25, dropout=1.0)
    assert (both == 0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert both.unique().tolist() == [0, 2, 3, 4]
    assert torch.equal(both[both > 0], draws(dropout=1.0)[both > 0])


def test_items_that_pass_are_not_rounded_and_still_teach_the_codes(z):
    torch.manual_seed(0)
    split = build_quantizer("split", dim=DIM, acoustic={"name": "rq", "depth": 3}, bypass=0.5)
    out, full = split(z, levels=torch.tensor([0, 4, 0, 2, 4])), split(z, levels=torch.tensor([4, 4, 4, 2, 4]))
    torch.testing.assert_close(out.values[[0, 2]], split.relax(z)[[0, 2]])
    assert torch.equal(out.values[[1, 3, 4]], full.values[[1, 3, 4]])
    assert torch.equal(out.ids, full.ids)
    torch.testing.assert_close((out.stats, out.losses, out.first), (full.stats, full.losses, full.first))


def test_parts_that_do_not_learn_stand_beside_those_that_do(z):
    split = build_quantizer("split", dim=DIM, semantic="fsq", acoustic={"name": "rq", "depth": 2})
    before = {name: value.clone() for name, value in split.state_dict().items()}
    split.update(split(z).stats)
    changed = {name for name, value in split.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner_dim": -1}, "inner_dim must be 0"),
        ({"bypass": 1.0}, r"bypass is a share of the items, in \[0, 1\), got 1.0"),
        ({"semantic": {"name": "vq", "dim": 8}}, "semantic.dim=8 is not inner_dim=16. Leave semantic.dim out"),
        ({"acoustic": "none"}, "must both have codes"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        build_quantizer("split", dim=DIM, **fields)
