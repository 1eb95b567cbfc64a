"""Squares from pictures: sizes, draws, channels, labels."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.base import datamodules
from datamodules.decode import DecodeError
from datamodules.images import Images, ImagesConfig, cut_square
from datamodules.reader import SlotSample
from mmtok.schema import ConfigError

CONFIG = ImagesConfig(shards="unused", image_size=32)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def draw(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def sample(pixels, seed=0, **members):
    return SlotSample("a", {"png": png(pixels)} | members, seed, slot=0)


def test_a_picture_of_the_right_size_is_passed_on_untouched():
    pixels = noise(32, 32)
    for training in (draw(), None):
        np.testing.assert_array_equal(cut_square(pixels, replace(CONFIG, flip=False), training), pixels)


@pytest.mark.parametrize("shape", [(32, 32), (40, 100), (100, 33), (7, 9), (1, 500)])
@pytest.mark.parametrize("options", [{}, {"min_scale": 0.5}, {"resize": False}, {"crop": "center"}])
def test_every_shape_gives_a_square(shape, options):
    config = replace(CONFIG, **options)
    for training in (draw(), None):
        square = cut_square(noise(*shape), config, training)
        assert square.shape == (32, 32, 3)
        assert square.dtype == np.uint8


def test_validation_takes_the_middle_and_no_draws():
    pixels = np.zeros((32, 96, 3), dtype=np.uint8)
    pixels[:, 32:64] = 255
    assert cut_square(pixels, CONFIG, None).min() == 255


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_shrinking_is_antialiased(name):
    """Every other column black: without a filter a reduced picture is all black or all white."""
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    square = cut_square(stripes, replace(CONFIG, interpolation=name), None)
    assert 118 < square[4:-4, 4:-4].min() <= square[4:-4, 4:-4].max() < 138


def test_resizing_equals_pillows():
    pixels = noise(64, 64)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(cut_square(pixels, CONFIG, None), expected)


def test_random_squares_cover_from_min_scale_to_all_of_the_shorter_side():
    """On a picture whose pixels say where they are, the corners of a cut tell its size."""
    ramp = np.broadcast_to((np.arange(250) % 256).astype(np.uint8)[None, :, None], (250, 250, 3))
    config = replace(CONFIG, min_scale=0.8, flip=False)
    widths = []
    for seed in range(200):
        row = cut_square(ramp, config, draw(seed))[0, :, 0].astype(int)
        widths.append((row[-1] - row[0]) * 32 / 31)
    assert 195 < min(widths) < 210
    assert 240 < max(widths) < 254


def test_half_of_the_samples_are_mirrored():
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[None, :, None], (32, 32, 3))
    mirrored = sum(int(cut_square(ramp, CONFIG, draw(seed))[0, 0, 0] == 31) for seed in range(400))
    assert 160 < mirrored < 240


def test_the_cut_depends_on_the_seed_of_the_slot_and_on_nothing_else():
    images, pixels = Images(CONFIG), noise(60, 90)
    first = images.item(sample(pixels, seed=5), training=True)[0]
    np.random.seed(1)
    torch.manual_seed(1)
    np.testing.assert_array_equal(Images(CONFIG).item(sample(pixels, seed=5), training=True)[0], first)
    assert not np.array_equal(images.item(sample(pixels, seed=6), training=True)[0], first)


def test_an_option_does_not_change_what_another_one_draws():
    pixels = noise(60, 90)
    plain = cut_square(pixels, replace(CONFIG, flip=False), draw(2))
    flipped = cut_square(pixels, replace(CONFIG, flip=True), draw(2))
    assert np.array_equal(flipped, plain) or np.array_equal(flipped[:, ::-1], plain)


def test_a_batch_is_one_tensor_with_labels_and_keys():
    images = Images(CONFIG)
    items = [images.item(sample(noise(32, 32), cls=b"3"), True), images.item(sample(noise(40, 50)), True)]
    batch = images.batch(items)
    assert batch["x"].shape == (2, 3, 32, 32)
    assert batch["x"].dtype == torch.uint8
    assert batch["x"].is_contiguous()
    assert batch["label"].tolist() == [3, -1]
    assert batch["key"] == ["a", "a"]


def test_grey_pictures_have_one_channel():
    pixels = Images(replace(CONFIG, grey=True)).item(sample(noise(32, 32)), training=False).pixels
    assert pixels.shape == (1, 32, 32)
    assert pixels.flags["C_CONTIGUOUS"]


def test_bytes_become_floats_between_minus_one_and_one():
    x = Images(CONFIG).to_signal(torch.tensor([0, 255], dtype=torch.uint8))
    assert x.tolist() == [-1.0, 1.0]


def test_what_cannot_be_used_is_refused_as_the_stream_counts_it():
    with pytest.raises(DecodeError):
        Images(CONFIG).item(SlotSample("a", {"png": b"no"}, 0, 0), training=True)
    with pytest.raises(DecodeError):
        Images(CONFIG).item(SlotSample("a", {"txt": b"no"}, 0, 0), training=True)
    with pytest.raises(DecodeError):
        Images(CONFIG).item(sample(noise(32, 32), cls=b"cat"), training=True)


@pytest.mark.parametrize("field", [{"image_size": 0}, {"min_scale": 0.0}, {"interpolation": "nearest"}, {"flp": True}])
def test_mistakes_in_a_recipe_are_refused(field):
    with pytest.raises(ConfigError):
        datamodules.build({"name": "images", "shards": "x", **field})
