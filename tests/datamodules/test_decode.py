from __future__ import annotations

import io
import json
import pickle
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from benchmarks.hostile import Payload, bomb, picture
from datamodules import decode as module
from datamodules.decode import DecodeError, decode, decode_image, image_extension, is_decodable, may_hold_code


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def smooth(size=40):
    y, x = np.mgrid[:size, : size + 7]
    return Image.fromarray(np.stack([x * 5, y * 5, x + y], -1).astype(np.uint8))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 20}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_short_way_gives_pils_pixels(options, mode):
    data = encoded(smooth().convert(mode), "JPEG", **options)
    fast = module._plain_jpeg(data)
    assert fast is not None
    np.testing.assert_array_equal(fast, np.array(Image.open(io.BytesIO(data)).convert("RGB")))
    np.testing.assert_array_equal(decode_image(data), fast)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pictures_become_writable_rgb(kind):
    pixels = decode_image(encoded(smooth(), kind))
    assert pixels.shape == (40, 47, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_on_white(mode):
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    pixels = decode_image(encoded(image.convert(mode)))
    assert (pixels[1:] == 255).all()
    assert pixels[0, 0].sum() < 3 * 255


def test_half_transparency_is_half_white():
    pixels = decode_image(encoded(Image.new("RGBA", (2, 2), (0, 0, 0, 128))))
    assert abs(int(pixels[0, 0, 0]) - 127) <= 1


def test_sixteen_bits_are_scaled_not_clipped():
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert decode_image(encoded(image))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["CMYK", "L", "1"])
def test_other_modes_become_rgb(mode):
    image = smooth().convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode_image(data), expected)


def test_pictures_stand_upright():
    exif = Image.Exif()
    exif[0x112] = 6
    assert decode_image(encoded(smooth(), "JPEG", exif=exif)).shape == (47, 40, 3)


@pytest.mark.parametrize("cut", [0, 2, 20, 300, 600])
def test_a_truncated_jpeg_is_a_named_error(cut):
    with pytest.raises(DecodeError, match=r"no readable picture|no JPEG, PNG or WebP"):
        decode_image(picture(1)[:cut])


def test_a_truncated_png_is_a_named_error():
    data = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    with pytest.raises(DecodeError):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("side", [8_001, 9_460, 20_000, 60_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_decodes(side):
    with pytest.raises(DecodeError, match="pixels"):
        decode_image(bomb(side))


def test_damaged_pictures_never_raise_anything_else():
    """Platform 3 trap 9: an error of another kind would end the run, or be swallowed with the good samples after it."""
    rng = np.random.default_rng(0)
    originals = [picture(1), encoded(smooth()), encoded(smooth(), "WEBP"), encoded(smooth().convert("P"))]
    for trial in range(400):
        data = bytearray(originals[trial % len(originals)])
        for _ in range(rng.integers(1, 8)):
            data[rng.integers(len(data))] = rng.integers(256)
        with suppress(DecodeError):
            assert decode_image(bytes(data)).shape[-1] == 3


@pytest.mark.parametrize("extension", ["pkl", "pickle", "pyd", "pth", "pt", "pkl.gz", "a.pkl", "PKL"])
def test_what_may_hold_code_is_never_loaded(tmp_path, extension):
    """Platform 3 trap 8: WebDataset's default decoders execute these."""
    data = pickle.dumps(Payload(tmp_path / "executed"))
    with pytest.raises(DecodeError, match="never loaded"):
        decode(extension, data)
    assert may_hold_code(extension)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("extension", ["gz", "jpg.gz", "tenbin", "exe", "tiff", ""])
def test_an_extension_off_the_list_is_refused(extension):
    assert not is_decodable(extension)
    with pytest.raises(DecodeError, match=r"is not decoded; known: .*cls"):
        decode(extension, b"")


@pytest.mark.parametrize("extension", ["jpg", "png", "npy", "json", "txt", "cls"])
def test_a_pickle_under_another_name_is_not_executed(tmp_path, extension):
    with pytest.raises(DecodeError):
        decode(extension, pickle.dumps(Payload(tmp_path / "executed")))
    assert not (tmp_path / "executed").exists()


def test_arrays_are_read_without_pickle():
    file = io.BytesIO()
    np.save(file, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(decode("npy", file.getvalue()), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "header", ["{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }", "{'x", "print(1)"]
)
def test_an_array_header_that_lies_is_refused(header):
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64
    with pytest.raises(DecodeError, match="no plain array"):
        decode("npy", data)


def test_an_object_array_is_refused(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([Payload(tmp_path / "executed")], dtype=object), allow_pickle=True)
    with pytest.raises(DecodeError, match="no plain array"):
        decode("npy", file.getvalue())
    assert not (tmp_path / "executed").exists()


def test_text_numbers_and_json():
    assert decode("txt", "ä".encode()) == "ä"
    assert decode("cls", b" 17\n") == 17
    assert decode("caption.json", json.dumps({"a": [1]}).encode()) == {"a": [1]}


@pytest.mark.parametrize(
    ("extension", "data"),
    [("cls", b"x"), ("cls", b"1" * 30), ("cls", b""), ("txt", b"\xff"), ("json", b"[" * 100_000), ("json", b"{")],
)
def test_wrong_content_is_a_named_error(extension, data):
    with pytest.raises(DecodeError):
        decode(extension, data)


def test_the_picture_of_a_sample_is_found_by_its_last_extension():
    assert image_extension({"cls": b"", "b.jpg": b""}) == "b.jpg"
    with pytest.raises(DecodeError, match="no picture among"):
        image_extension({"cls": b""})
