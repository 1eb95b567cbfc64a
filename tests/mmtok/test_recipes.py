"""What ships in configs/ can be built, and presets of one folder cost the same bits."""

import pytest
import torch

from mmtok.config import FitConfig, load_any, load_config
from mmtok.resources import recipe_names
from mmtok.tokenizers import build_tokenizer
from mmtok.training.adversary import Adversary

FOLDERS = ("image/", "audio/", "text/", "vector/")
COMPLETE = [name for name in recipe_names() if name.startswith(FOLDERS)]
FITTED = [name for name in COMPLETE if isinstance(load_any([name]).config, FitConfig)]
RECIPES = [name for name in COMPLETE if name not in FITTED]
PRESETS = [name for name in recipe_names() if name.startswith("quantizer/")]
LAYERS = [name for name in recipe_names() if name not in COMPLETE and not name.startswith("cluster/")]


def build(*layers):
    config = load_config(layers).config
    with torch.device("meta"):
        return build_tokenizer(config.tokenizer, config.quantizer)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name):
    tokenizer = build(name)
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) > 0


@pytest.mark.parametrize("name", FITTED)
def test_every_fitted_recipe_builds_and_is_refused_as_a_training(name):
    config = load_any([name]).config
    tokenizer = build_tokenizer(config.tokenizer, config.quantizer)
    assert not tokenizer.fitted
    with pytest.raises(ValueError, match=f"fitted in one pass.*mmtok train {name}"):
        load_config([name])


@pytest.mark.parametrize("name", [name for name in RECIPES if load_config([name]).config.adversary is not None])
def test_every_adversary_judges_what_its_recipe_trains_on(name):
    config, tokenizer = load_config([name]).config, build(name)
    with torch.device("meta"):
        discriminator = Adversary(config.adversary, tokenizer.spec.channels).discriminator
        logits = discriminator(torch.zeros(1, tokenizer.spec.channels, *config.data.shape)).logits
    assert all(part.numel() > 1 for part in logits)
    assert config.adversary.start + config.adversary.warmup_steps < config.trainer.max_steps


@pytest.mark.parametrize(
    ("name", "frames", "bits", "parameters"),
    [
        ("audio/encodec_24k", 75, 24_000, 14.9e6),
        ("audio/soundstream", 75, 6_000, 9.8e6),
        ("audio/dac_44k", 44_100 / 512, 7_752, 76.6e6),
        ("audio/dac_16k", 50, 6_000, 74.2e6),
        ("audio/speech_split", 50, 4_000, 20.1e6),
    ],
)
def test_audio_recipes_are_as_published(name, frames, bits, parameters):  # audio.md 2
    tokenizer = build(name)
    rate = tokenizer.spec.sample_rate / tokenizer.spec.downsample
    assert rate == frames
    assert rate * tokenizer.spec.bits_per_position == pytest.approx(bits, rel=1e-3)
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) == pytest.approx(parameters, rel=0.01)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_fits_a_recipe(name):
    load_config(["image/vqvae_cifar", name])


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_bits_of_its_folder(name):
    bits = int(name.split("/")[1].removesuffix("bit"))
    tokenizer = build("image/vqvae_cifar", name)
    scales = tokenizer.quantizer.scales((8, 8)) or ((8, 8),)  # several scales have more codes than there are latents
    codes = sum(height * width for height, width in scales) / 64
    tolerance = 1e-6 if codes == 1 else 1e-3
    assert tokenizer.spec.bits_per_position * codes == pytest.approx(bits, rel=tolerance)


def test_the_small_recipe_stays_small():
    tokenizer = build("image/vqvae_cifar")
    assert sum(parameter.numel() for parameter in tokenizer.parameters()) <= 310_000
    assert tokenizer.spec.downsample == 4
