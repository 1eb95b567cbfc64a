"""Transformers on patches: any size of picture, one row of tokens or a grid."""

import pytest
import torch

from mmtok.networks import networks
from mmtok.networks.blocks_vit import grid_positions

SMALL = {"patch": 4, "width": 32, "layers": 2, "heads": 2, "in_channels": 3, "dim": 8}


def build(name, **fields):
    torch.manual_seed(0)
    return networks.build(networks.parse({"name": name, **SMALL, **fields}, "encoder")).eval()


def test_a_grid_of_patches_comes_back_as_pixels():
    network, x = build("vit", decoder_layers=1), torch.randn(2, 3, 8, 20)
    latents = network.encoder(x)
    assert latents.shape == (2, 8, 2, 5)
    assert network.decoder(latents).shape == x.shape
    assert len(network.decoder.blocks) == 2  # one block and the last norm


def test_a_token_tells_where_its_patch_lies():
    network, x = build("vit"), torch.zeros(1, 3, 8, 8)
    latents = network.encoder(x).flatten(2)[0]
    assert torch.pdist(latents.T).min() > 1e-4
    places = grid_positions((5, 7), 32, latents)
    assert places.shape == (35, 32)
    assert torch.pdist(places).min() > 0.1


def test_every_latent_sees_the_whole_picture():
    network = build("vit")
    x = torch.randn(1, 3, 8, 8, requires_grad=True)
    network.encoder(x)[0, :, 0, 0].sum().backward()
    assert (x.grad.abs().sum((0, 1)) > 0).all()


@pytest.mark.parametrize("size", [(8, 8), (12, 4)])
def test_queries_are_as_many_whatever_the_size(size):
    network, x = build("queries", queries=5), torch.randn(2, 3, *size)
    latents = network.encoder(x)
    assert latents.shape == (2, 8, 5)
    grid = (size[0] // 4, size[1] // 4)
    assert network.decoder(latents, grid).shape == x.shape


def test_an_absent_token_does_not_depend_on_what_stood_there():
    network = build("queries", queries=4)
    latents = torch.randn(2, 8, 4)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    other = latents.where(mask[:, None], 7.0)
    a, b = (network.decoder(one, (2, 2), mask) for one in (latents, other))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(network.decoder(latents, (2, 2))[0], a[0])
    torch.testing.assert_close(network.decoder(latents, (2, 2))[1], a[1])


def test_recomputing_blocks_changes_no_gradient():
    x, gradients = torch.randn(1, 3, 8, 8), []
    for checkpointing in (False, True):
        network = build("vit", gradient_checkpointing=checkpointing).train()
        network.decoder(network.encoder(x)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(*gradients)


def test_the_seam_mender_starts_by_changing_nothing():
    network, plain = build("vit"), build("vit", smooth=False)
    plain.load_state_dict(network.state_dict(), strict=False)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(network.decoder(network.encoder(x)), plain.decoder(plain.encoder(x)))
    assert network.last_layer.shape == (3, 3, 3, 3)
    assert plain.last_layer.shape == (48, 32)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"width": 36}, "multiple of 4 x heads"),
        ({"layers": 0}, "layers must be"),
        ({"decoder_layers": 0}, "decoder_layers"),
    ],
)
def test_what_cannot_be_built_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        build("vit", **fields)
    with pytest.raises(ValueError, match="queries must be"):
        build("queries", queries=0)
