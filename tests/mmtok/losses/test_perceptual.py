"""LPIPS: the package's numbers, from weights on this machine, frozen for good."""

import pytest
import torch
from torch import nn

from mmtok.losses import losses
from mmtok.losses import perceptual as perceptual_module
from mmtok.losses.perceptual import LPIPS, LPIPSConfig, build_lpips, find_lpips

PINNED = {"alex": (0.266232, 0.061821), "vgg": (0.234274, 0.094308)}
"""LPIPS of `waves` by lpips 0.1.4 itself: its own heads, the fetched backbones copied in by order, none of our code."""


def waves(side=64):
    """Two pictures and what a noisy, dimmer copy of each is: arithmetic, the same on every machine."""
    rows, columns = torch.meshgrid(torch.arange(side) / side, torch.arange(side) / side, indexing="ij")
    x = torch.stack([torch.sin(20 * rows + k) * torch.cos(9 * columns * (k + 1)) for k in range(3)])
    x = torch.stack([x, torch.sin(6 * x.flip(2))])
    return x, (0.8 * x + 0.2 * torch.sin(71 * rows + 57 * columns)).clamp(-1, 1)


@pytest.fixture
def loss(alexnet):
    return losses.build({"name": "lpips", "net": "alex", "weights": str(alexnet)})


@pytest.fixture
def nothing_here(monkeypatch, tmp_path):
    monkeypatch.setenv("MMTOK_CACHE", str(tmp_path / "mmtok"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_it_is_the_package(loss, alexnet):
    x, y = waves()
    want = build_lpips("alex", alexnet)(y, x).flatten()
    torch.testing.assert_close(loss.distances(y, x), want)
    torch.testing.assert_close(loss(y, x), want.mean())
    assert loss(x, x) == 0


@pytest.mark.parametrize("net", PINNED)
def test_the_true_weights_give_the_packages_values(net):
    """image.md trap 17: trainers whose LPIPS had never loaded its weights."""
    if find_lpips(net) is None:
        pytest.skip(f"no weights of {net} here: mmtok doctor --fetch lpips")
    x, y = waves()
    got = LPIPS(LPIPSConfig(net=net)).distances(y, x)
    torch.testing.assert_close(got, build_lpips(net)(y, x).flatten(), atol=1e-5, rtol=1e-4)
    assert got.tolist() == pytest.approx(PINNED[net], abs=2e-5)


def test_dropout_stays_inert_when_the_parent_trains(loss):
    """image.md trap 20."""
    x, y = waves()
    before = loss(y, x)
    parent = nn.ModuleDict({"perceptual": loss}).train()
    assert not any(part.training for part in parent["perceptual"].network.modules())
    assert any(isinstance(part, nn.Dropout) for part in parent.modules())
    assert loss(y, x) == before


def test_no_checkpoint_optimiser_or_cast_finds_the_weights(loss):
    """image.md trap 20."""
    x, y = waves()
    before = loss(y, x)
    parent = nn.ModuleDict({"perceptual": loss})
    assert not list(parent.parameters())
    assert not parent.state_dict()
    parent.load_state_dict({})
    parent.bfloat16()
    assert loss(y, x) == before
    assert {buffer.device.type for buffer in loss.to("meta").buffers()} == {"meta"}


def test_gradients_reach_the_reconstruction_and_nothing_else(loss):
    x, y = (part.requires_grad_() for part in waves())
    loss(y, x).backward()
    assert y.grad.abs().sum() > 0
    assert x.grad is None
    assert not any(buffer.requires_grad for buffer in loss.buffers())


def test_autocast_changes_nothing(loss):
    x, y = waves()
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(y.bfloat16(), x)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, loss(y.bfloat16().float(), x))


def test_grey_pictures_are_repeated(loss):
    x, y = (part[:, :1] for part in waves())
    torch.testing.assert_close(loss(y, x), loss(y.repeat(1, 3, 1, 1), x.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        loss(y.repeat(1, 2, 1, 1), x.repeat(1, 2, 1, 1))


def test_pictures_may_be_small_but_not_too_small(loss):
    x, y = (part[..., :32, :32] for part in waves())
    assert loss(y, x) > 0
    with pytest.raises(ValueError, match=r"31 pixels a side, got 28 x 28\. Use net: vgg"):
        loss(y[..., :28, :28], x[..., :28, :28])


def test_padding_does_not_count(loss):
    x, y = waves()
    mask = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    mask[..., :48] = True
    hidden = [torch.where(mask, part, torch.nan).requires_grad_() for part in (y, x)]
    got = loss(hidden[0], hidden[1], mask)
    torch.testing.assert_close(got, loss(y, x, mask))
    torch.testing.assert_close(got, loss(y[..., :48], x[..., :48]), rtol=0.2, atol=0)
    got.backward()
    assert hidden[0].grad.isfinite().all()


def test_a_place_without_any_feature_has_a_gradient(loss):
    for name, buffer in loss.network.named_buffers():
        if name.endswith("bias"):
            buffer.fill_(-100.0)
    x, y = waves()
    loss(y.requires_grad_(), x).backward()
    assert y.grad.isfinite().all()


def test_absent_weights_are_one_error_that_names_the_choices(nothing_here):
    with pytest.raises(ValueError, match="found no backbone weights") as error:
        losses.build({"name": "lpips"})
    for choice in ("mmtok doctor --fetch lpips", "loss.NAME.weights=PATH", "vgg16-397923af.pth"):
        assert choice in str(error.value)
    assert "mmtok doctor --fetch lpips" in LPIPS.lacks(LPIPSConfig())


def test_torchvisions_cache_is_found(nothing_here, alexnet, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(alexnet.parents[2]))
    assert LPIPS.lacks(LPIPSConfig(net="alex")) == ""
    x, y = waves()
    assert losses.build({"name": "lpips", "net": "alex"})(y, x) > 0


def test_weights_of_another_network_are_named(alexnet, tmp_path):
    with pytest.raises(ValueError, match=r"alexnet.*'net.slice1.0.weight' is \(64, 3, 11, 11\) and should be"):
        losses.build({"name": "lpips", "net": "vgg", "weights": str(alexnet)})
    with pytest.raises(ValueError, match="no file of weights at"):
        losses.build({"name": "lpips", "weights": str(tmp_path / "absent.safetensors")})
    torch.save({"features.0.weight": print}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="is no file of weights"):
        losses.build({"name": "lpips", "weights": str(tmp_path / "evil.pth")})


def test_without_the_package_it_says_so(monkeypatch):
    monkeypatch.setattr(perceptual_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install lpips"):
        losses.build({"name": "lpips"})
    assert "pip install lpips" in LPIPS.lacks(LPIPSConfig())
