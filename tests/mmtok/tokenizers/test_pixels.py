"""Pictures in any form to x, and back."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as TF

from mmtok.tokenizers import pixels


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (11, 17, 3), dtype=np.uint8)


def png(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_every_form_of_one_picture_gives_the_same_pixels(picture, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(Image.fromarray(picture)))
    chw = np.moveaxis(picture, -1, 0)
    forms = [path, str(path), path.read_bytes(), Image.fromarray(picture), picture, chw, torch.from_numpy(chw.copy()),
             torch.from_numpy(chw.copy())[None], picture[:, ::-1][:, ::-1]]  # fmt: skip
    for form in forms:
        got = pixels.read_pixels(form, 3)
        assert got.dtype == torch.uint8
        assert torch.equal(got[0], torch.from_numpy(chw.copy()))


@pytest.mark.parametrize("values", [np.float32, np.float64])
def test_floats_pass_as_they_are(values, picture):
    x = picture.astype(values) / 127.5 - 1
    got = pixels.read_pixels(x, 3)
    torch.testing.assert_close(got, pixels.to_unit(pixels.read_pixels(picture, 3)), atol=1e-6, rtol=0)


def test_a_float_range_can_be_named(picture):
    got = pixels.read_pixels(picture.astype(np.float32) / 255, 3, value_range=(0, 1))
    torch.testing.assert_close(got, pixels.to_unit(pixels.read_pixels(picture, 3)), atol=1e-6, rtol=0)


def test_a_float_picture_without_negatives_is_questioned(picture):
    with pytest.warns(UserWarning, match="value_range"):
        pixels.read_pixels(picture.astype(np.float32) / 255, 3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (np.full((4, 4, 3), 200.0, np.float32), r"0 \.\. 255: divide by 127.5"),
        (np.full((4, 4, 3), np.nan, np.float32), "not finite"),
        (np.zeros((8, 8, 5), np.uint8), "1 to 4 channels"),
        (np.zeros((4, 4, 3), np.int64), "uint8, uint16 or floats"),
        (b"no picture", "cannot be read as a picture"),
        ("missing.png", "no picture at missing.png"),
        (3, "got int"),
    ],
)
def test_what_is_no_picture_is_refused(source, says):
    with pytest.raises(ValueError, match=says):
        pixels.read_pixels(source, 3)


def test_a_truncated_file_is_refused(picture):
    data = png(Image.fromarray(np.tile(picture, (9, 9, 1))), "JPEG")
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        pixels.read_pixels(data[: len(data) // 2], 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1", "CMYK"])
def test_every_mode_gives_the_channels_asked_for(mode, channels, picture):
    image = Image.fromarray(picture).convert(mode)
    assert pixels.read_pixels(image, channels).shape == (1, channels, 11, 17)
    assert pixels.read_pixels(np.zeros((11, 17), np.uint8), channels).shape == (1, channels, 11, 17)


def test_transparent_pictures_lie_over_white():
    image = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert (pixels.read_pixels(image, 3) == 255).all()
    assert (pixels.read_pixels(np.asarray(image), 3) == 255).all()


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    want = torch.from_numpy(ramp.astype(np.float32) * (2 / 65535) - 1)
    for source in (ramp, Image.fromarray(ramp), png(Image.fromarray(ramp))):
        torch.testing.assert_close(pixels.read_pixels(source, 1)[0, 0], want)


def test_a_turned_photograph_stands_upright(picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    got = pixels.read_pixels(png(Image.fromarray(picture), exif=exif), 3)
    assert torch.equal(got[0], torch.from_numpy(np.rot90(picture, -1).copy()).movedim(-1, 0))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [5, 23, (9, 30)])
@pytest.mark.parametrize("shape", [(11, 17), (17, 11), (16, 16)])
def test_resizing_equals_torchvision(shape, size, interpolation):
    image = torch.randint(0, 256, (1, 3, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mode = TF.InterpolationMode(interpolation)
    want_size = size if isinstance(size, tuple) else [size]
    assert torch.equal(pixels.resize(image, size, interpolation), TF.resize(image, want_size, mode, antialias=True))
    x = pixels.to_unit(image)
    want = TF.resize(x, want_size, mode, antialias=True).clamp(-1, 1)
    assert torch.equal(pixels.resize(x, size, interpolation), want)


@pytest.mark.parametrize("shape", [(10, 15), (11, 16), (9, 9)])
@pytest.mark.parametrize("size", [4, 9, (5, 8)])
def test_the_middle_is_torchvisions(shape, size):
    image = torch.arange(shape[0] * shape[1], dtype=torch.float32).view(1, 1, *shape)
    assert torch.equal(pixels.center_crop(image, size), TF.center_crop(image, size))


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match="Give resize=12 too"):
        pixels.center_crop(torch.zeros(1, 3, 8, 20), 12)


def test_all_bytes_survive_the_way_there_and_back():
    """image.md trap 24: clamp and round, or a picture loses half a step."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(pixels.to_uint8(pixels.to_unit(levels)), levels)
    assert torch.equal(pixels.to_uint8(torch.tensor([-2.0, 2.0, 0.0, 0.004])), torch.tensor([0, 255, 128, 128]).byte())
    assert pixels.to_uint8(torch.tensor([199.6]) / 127.5 - 1) == 200


def test_back_to_pil(picture):
    x = pixels.to_unit(pixels.read_pixels(picture, 3))
    assert np.array_equal(np.asarray(pixels.to_pil(x)[0]), picture)
    assert pixels.to_pil(x[:, :1])[0].mode == "L"


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "floats in"),
        (torch.zeros(1, 4, 4, 3), r"looks like \(B, H, W, C\)"),
        (torch.zeros(3, 4, 4), r"\(B, 3, H, W\)"),
        (torch.zeros(1, 1, 4, 4), r"\(B, 3, H, W\)"),
        (torch.full((1, 3, 4, 4), 1.2), r"\[1.2, 1.2\]"),
        (torch.full((1, 3, 4, 4), 255.0), "divide by 127.5"),
        (torch.full((1, 3, 4, 4), torch.inf), "not finite"),
    ],
)
def test_an_x_outside_its_contract_is_refused(x, says):
    with pytest.raises(ValueError, match=says):
        pixels.check_pixels(x, 3)
