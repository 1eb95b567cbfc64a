import pytest
import torch

from mmtok.quantizers import build_quantizer


def test_each_group_is_coded_on_its_own():
    quantizer = build_quantizer("pq", dim=8, groups=4, codebook_size=16).eval()
    z = torch.randn(2, 10, 8)
    whole = quantizer(z)
    z[..., 2:4] += 100.0  # the second group
    out = quantizer(z)
    same = [torch.equal(out.ids[:, group], whole.ids[:, group]) for group in range(4)]
    assert same == [True, False, True, True]
    assert quantizer.codebook_sizes == (16,) * 4


def test_the_commitment_is_that_of_all_channels():
    quantizer = build_quantizer("pq", dim=8, groups=2, codebook_size=16)
    z = torch.randn(2, 10, 8)
    out = quantizer(z)
    torch.testing.assert_close(out.losses["commitment"], 0.25 * (z - out.values).square().mean())


def test_nested_ids_are_outer_major():
    block = {"name": "product", "groups": 2, "inner": {"name": "residual", "depth": 3, "inner": "vq"}}
    quantizer = build_quantizer(block, dim=8).eval()
    z = torch.randn(1, 6, 8)
    want = torch.cat([part(half).ids for part, half in zip(quantizer.parts, z.chunk(2, -1), strict=True)], 1)
    assert torch.equal(quantizer(z).ids, want)


def test_a_shared_codebook_learns_from_all_groups():
    quantizer = build_quantizer("pq", dim=4, groups=2, codebook_size=1, shared=True)
    quantizer.update(quantizer(torch.tensor([[[1.0, 1.0, 3.0, 3.0]]])).stats)
    torch.testing.assert_close(quantizer.parts[0].codebook, torch.tensor([[2.0, 2.0]]))


def test_groups_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"groups=3 does not divide dim=8. Use one of \[1, 2, 4, 8\]"):
        build_quantizer("pq", dim=8, groups=3)


def test_groups_cannot_be_left_out():
    quantizer = build_quantizer("pq", dim=8, groups=2)
    with pytest.raises(ValueError, match="Groups cannot be left out"):
        quantizer.decode(torch.zeros(1, 1, 5, dtype=torch.int64))
