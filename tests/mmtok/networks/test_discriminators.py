import pytest
import torch
from torch import nn

from mmtok.networks.discriminators import discriminators

SMALL = {"in_channels": 3, "channels": 8}
NAMES = ("patchgan", "blur")
"""Those of pictures; test_sound_discriminators.py has the others."""


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("norm", ["group", "none"])
@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_every_item_is_judged_for_itself(name, norm, size):  # image.md trap 19: no BatchNorm
    torch.manual_seed(0)
    network = discriminators.build(name, **SMALL, norm=norm).train()
    x = torch.rand(3, 3, *size) * 2 - 1
    state = {key: value.clone() for key, value in network.state_dict().items()}
    together = network(x).logits[0]
    assert together.shape[:2] == (3, 1)
    torch.testing.assert_close(torch.cat([network(item[None]).logits[0] for item in x]), together, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def probe(network: nn.Module, side: int) -> int:
    """Pixels across that one logit sees."""
    x = torch.zeros(1, 3, side, side, requires_grad=True)
    logits = network(x).logits[0]
    middle = logits.shape[-1] // 2
    logits[0, 0, middle, middle].backward()
    seen = x.grad[0].abs().sum(0).amax(0).nonzero()[:, 0]
    return int(seen.max() - seen.min() + 1)


@pytest.mark.parametrize(("layers", "pixels"), [(3, 70), (2, 34), (1, 16)])
def test_a_patch_is_as_large_as_the_field_says(layers, pixels):
    network = discriminators.build("patchgan", **SMALL, layers=layers, norm="none")
    for convolution in (module for module in network.modules() if isinstance(module, nn.Conv2d)):
        nn.init.ones_(convolution.weight)  # nothing may cancel
    assert probe(network, 160) == pixels


def test_a_blur_keeps_what_is_constant_and_halves_the_sides():
    from mmtok.networks.discriminators.patchgan import Blur

    out = Blur()(torch.full((1, 2, 7, 10), 0.3))
    assert out.shape == (1, 2, 4, 5)
    torch.testing.assert_close(out, torch.full_like(out, 0.3))


def test_a_blur_is_the_binomial_one():
    from mmtok.networks.discriminators.patchgan import Blur

    impulse = torch.zeros(1, 1, 8, 8)
    impulse[0, 0, 4, 4] = 64.0
    out = Blur()(impulse)[0, 0]
    # Rows 1 and 2 of the result lie over rows 1..4 and 3..6 of the input: weights 1 and 3 of [1, 3, 3, 1].
    assert out[1:3, 1:3].tolist() == [[1.0, 3.0], [3.0, 9.0]]
    assert out.sum() == 16.0


def test_the_discriminator_of_vqgan_plus_is_as_large():  # widths 128, 128, 256, 512, 1024
    with torch.device("meta"):
        network = discriminators.build("blur", in_channels=3, channels=128, layers=4)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_431_297


def test_channels_come_from_the_tokenizer():
    config = discriminators.parse({"name": "blur", "in_channels": 1})
    assert config.filled(1).in_channels == 1
    with pytest.raises(ValueError, match=r"in_channels=1 does not fit the tokenizer's 3"):
        config.filled(3)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="patchgan"):
        discriminators.build("patchgn")
