"""What ships in configs/ can be built, and presets of one folder cost the same bits."""

import pytest
import torch

from mmtok.config import load_config
from mmtok.resources import recipe_names
from mmtok.tokenizers import build_tokenizer
from mmtok.training.adversary import Adversary

FOLDERS = ("image/", "audio/", "text/", "vector/")
RECIPES = [name for name in recipe_names() if name.startswith(FOLDERS)]
PRESETS = [name for name in recipe_names() if name.startswith("quantizer/")]
LAYERS = [name for name in recipe_names() if name not in RECIPES and not name.startswith("cluster/")]


def build(*layers):
    config = load_config(layers).config
    with torch.device("meta"):
        return build_tokenizer(config.tokenizer, config.quantizer)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name):
    tokenizer = build(name)
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) > 0


@pytest.mark.parametrize("name", [name for name in RECIPES if "gan" in name])
def test_every_adversary_builds_for_its_pictures(name):
    config = load_config([name]).config
    with torch.device("meta"):
        adversary = Adversary(config.adversary, in_channels=3)
        logits = adversary.discriminator(torch.zeros(1, 3, *[config.data.image_size] * 2)).logits[0]
    assert min(logits.shape[2:]) > 1
    assert config.adversary.start + config.adversary.warmup_steps < config.trainer.max_steps


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_fits_a_recipe(name):
    load_config(["image/vqvae_cifar", name])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_bits_of_its_folder(name):
    bits = int(name.split("/")[1].removesuffix("bit"))
    assert build("image/vqvae_cifar", name).spec.bits_per_position == pytest.approx(bits)


def test_the_small_recipe_stays_small():
    tokenizer = build("image/vqvae_cifar")
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) <= 310_000
    assert tokenizer.spec.downsample == 4
