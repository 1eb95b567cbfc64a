import pytest
import torch
import torch.nn.functional as F

from mmtok.quantizers import build_quantizer
from mmtok.tokenizers import build_tokenizer

GRID = (8, 8)


def multiscale(**fields):
    torch.manual_seed(0)
    return build_quantizer("multiscale", dim=8, **({"codebook_size": 64, "scales": [1, 2, 4, 8], "mends": 2} | fields))


def latents(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def reference(quantizer, z):
    """VAR's loop (models/quant.py of FoundationVision/VAR), on (B, C, H, W)."""
    f = z.transpose(1, 2).unflatten(2, GRID)
    rest, total, ids, losses = f.detach().clone(), torch.zeros_like(f), [], [0.0, 0.0]
    codes, sides = quantizer.codes.codebook, quantizer.config.scales
    for number, side in enumerate(sides):
        x = F.interpolate(rest, size=(side, side), mode="area") if side != 8 else rest
        index = torch.cdist(x.permute(0, 2, 3, 1).reshape(-1, 8), codes).argmin(1).view(len(z), side, side)
        h = F.embedding(index, codes).permute(0, 3, 1, 2)
        h = F.interpolate(h, size=GRID, mode="bicubic") if side != 8 else h
        h = h * 0.5 + quantizer._mend(number)(h) * 0.5
        total, rest = total + h, rest - h.detach()
        ids.append(index.flatten(1))
        losses[0] = losses[0] + 0.25 * F.mse_loss(f, total.detach()) / len(sides)
        losses[1] = losses[1] + F.mse_loss(total, f.detach()) / len(sides)
    return torch.cat(ids, 1), (total.detach() - f.detach() + f).flatten(2).transpose(1, 2), losses


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_ids_values_losses_and_gradients_are_those_of_var(learn):
    quantizer, z = multiscale(learn=learn), latents(3, 64, 8).requires_grad_()
    out = quantizer(z, grid=GRID)
    ids, values, (commitment, codebook) = reference(quantizer, z)
    assert torch.equal(out.ids[:, 0], ids)
    torch.testing.assert_close(out.values, values)
    torch.testing.assert_close(dict(out.losses), {"commitment": commitment, "codebook": codebook})
    inputs = [z, *quantizer.parameters()]
    found, want = (
        torch.autograd.grad(objective, inputs, allow_unused=True)
        for objective in (
            out.values.square().sum() + sum(out.losses.values()),
            values.square().sum() + commitment + codebook,
        )
    )
    torch.testing.assert_close(found, want)


def test_convolutions_are_shared_as_in_var():
    quantizer = build_quantizer("multiscale", dim=8)
    used = [list(quantizer.mends).index(quantizer._mend(number)) for number in range(10)]
    assert used == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]  # numpy's argmin over linspace(1 / 12, 11 / 12, 4)
    assert quantizer.scales((16, 16))[-2:] == ((13, 13), (16, 16))
    assert sum(height * width for height, width in quantizer.scales((16, 16))) == 680


def test_scales_fit_grids_of_any_shape():
    quantizer = multiscale()
    assert quantizer.scales((4, 12)) == ((1, 2), (1, 3), (2, 6), (4, 12))
    out = quantizer(latents(1, 48, 8), grid=(4, 12))
    assert torch.equal(quantizer.decode(out.ids, grid=(4, 12)), out.values)


def test_each_scale_brings_the_values_nearer():
    quantizer, z = multiscale(scales=[1, 2, 4, 8], mends=0, init="kmeans"), latents(16, 64, 8)
    for _ in range(20):
        quantizer.update(quantizer(z, grid=GRID).stats)
    kept = [quantizer(z, grid=GRID, levels=torch.full((16,), n)) for n in (1, 2, 3, 4)]
    errors = [(out.values - z).square().mean() for out in kept]
    assert errors == sorted(errors, reverse=True)
    whole = quantizer(z, grid=GRID)
    assert torch.equal(kept[3].ids, whole.ids)
    assert torch.equal(kept[1].ids[..., :5], whole.ids[..., :5])
    assert (kept[1].ids[..., 5:] == -1).all()
    torch.testing.assert_close(quantizer.decode(kept[1].ids, grid=GRID), kept[1].values)


def test_a_mended_scale_that_is_left_out_adds_nothing():
    quantizer = multiscale()
    with torch.no_grad():
        for mend in quantizer.mends:
            mend.bias.fill_(9.0)
    out = quantizer(latents(2, 64, 8), grid=GRID, levels=torch.tensor([1, 4]))
    torch.testing.assert_close(quantizer.decode(out.ids, grid=GRID), out.values)
    first = quantizer._bring(out.ids[:1, 0, :1], 0, (1, 1), GRID)
    torch.testing.assert_close(out.values[:1], first)


def test_a_picture_goes_through_codes_of_several_scales_and_back(tmp_path):
    from mmtok.codes import Codes

    encoder = {"name": "conv2d", "channels": 4, "multipliers": [1, 2], "blocks": 1, "groups": 2}
    block = {"name": "multiscale", "codebook_size": 16, "scales": [1, 2, 4]}
    tokenizer = build_tokenizer({"name": "image", "image_size": 16, "dim": 8, "encoder": encoder}, block).eval()
    codes = tokenizer.encode(torch.rand(2, 3, 16, 13) * 2 - 1)
    sizes = codes.scales
    assert sizes[-1] == codes.grid
    assert codes.ids.shape[2] == sum(height * width for height, width in sizes) == int(codes.lengths[0])
    codes.save(tmp_path / "codes.safetensors", tokenizer.spec)
    again, _ = Codes.load(tmp_path / "codes.safetensors")
    assert again.scales == sizes
    assert torch.equal(tokenizer.decode(again), tokenizer.decode(codes))
    assert tokenizer.decode(codes).shape == (2, 3, 16, 13)
    from mmtok.export.bundle import write_bundle

    with pytest.raises(ValueError, match="several scales"):
        write_bundle(tokenizer, tmp_path / "bundle")
    few = tokenizer.encode(torch.zeros(1, 3, 16, 16), budget=2)
    assert (few.ids >= 0).sum() == sum(height * width for height, width in few.scales[:2])


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"scales": [2, 1]}, "scales"),
        ({"scales": []}, "scales"),
        ({"mends": -1}, "mends"),
        ({"mend_ratio": 2.0}, "mend_ratio"),
        ({"code_dim": 4}, "code_dim"),
    ],
)
def test_a_wrong_field_is_named(fields, named):
    with pytest.raises(ValueError, match=named):
        multiscale(**fields)


def test_what_it_cannot_code_is_refused():
    quantizer = multiscale()
    with pytest.raises(ValueError, match="give grid"):
        quantizer(latents(1, 64, 8))
    with pytest.raises(ValueError, match="does not hold 60 positions"):
        quantizer(latents(1, 60, 8), grid=GRID)
    with pytest.raises(ValueError, match="are not of scales"):
        quantizer.decode(torch.zeros(1, 1, 7, dtype=torch.int64), grid=GRID)
