"""Codes in bits: what comes back is what went in, and what is not whole is refused by name."""

import random
import struct
import zlib

import pytest
import torch

from mmtok.codes import Codes, CodeSpec
from mmtok.tokenizers.container import bits_of, is_mmc, read_mmc, write_mmc

SIZES = (1024, 1000, 2, 1, 3, 65536)
SPEC = CodeSpec("audio", SIZES, downsample=320, sample_rate=24000)


def draw(batch=2, frames=37, sizes=SIZES, **fields):
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randint(size, (batch, 1, frames), generator=generator) for size in sizes]
    full = torch.full((batch,), frames)
    return Codes(torch.cat(levels, 1), full, full[:, None] * 320 - 5, **fields)


def same(codes, other):
    assert torch.equal(codes.ids, other.ids)
    assert torch.equal(codes.lengths, other.lengths)
    assert torch.equal(codes.source_size, other.source_size)
    assert (codes.grid, codes.scales) == (other.grid, other.scales)
    assert codes.extras.keys() == other.extras.keys()
    for name, value in codes.extras.items():
        assert value.dtype == other.extras[name].dtype
        assert torch.equal(value, other.extras[name])


@pytest.mark.parametrize(
    "fields",
    [{}, {"extras": {"gain": torch.tensor([0.1, 3e-5]), "n": torch.tensor([[1], [2]])}}, {"grid": (37, 1)}],
)
@pytest.mark.parametrize("frames", [0, 1, 8, 37])
def test_codes_come_back_as_they_went_in(fields, frames, tmp_path):
    if "grid" in fields:
        fields = {"grid": (frames, 1), "scales": ((frames, 1),)}
    codes = draw(frames=frames, **fields)
    write_mmc(codes, tmp_path / "a.mmc", SPEC, tokenizer="0123", source="ä.wav")
    found, spec, metadata = read_mmc(tmp_path / "a.mmc")
    same(codes, found)
    assert spec == SPEC
    assert metadata == {"tokenizer": "0123", "source": "ä.wav"}
    assert is_mmc(tmp_path / "a.mmc")


def test_dropped_levels_holes_and_padding_come_back_as_minus_one(tmp_path):
    codes = draw()
    codes.ids[0, 1:] = -1  # a budget of one level
    codes.ids[1, 0, ::3] = -1  # a level that ticks slower
    codes.ids[1, :, 30:] = -1  # padding
    codes = Codes(codes.ids, torch.tensor([37, 30]), codes.source_size)
    write_mmc(codes, tmp_path / "a.mmc", SPEC)
    same(codes, read_mmc(tmp_path / "a.mmc")[0])


def test_each_id_has_the_bits_of_its_codebook(tmp_path):
    assert [bits_of(size) for size in (1, 2, 3, 1000, 1024, 1025)] == [0, 1, 2, 10, 10, 11]
    write_mmc(draw(1, 800), tmp_path / "a.mmc", SPEC)
    write_mmc(draw(1, 1600), tmp_path / "b.mmc", SPEC)
    more = (tmp_path / "b.mmc").stat().st_size - (tmp_path / "a.mmc").stat().st_size
    assert abs(more - 800 * (10 + 10 + 1 + 0 + 2 + 16) / 8) <= 4  # a digit more in some number of the header


def test_every_flipped_bit_and_every_cut_is_refused_by_name(tmp_path):
    path = tmp_path / "a.mmc"
    write_mmc(draw(1, 5), path, SPEC)
    whole = path.read_bytes()
    draws = random.Random(0)
    for bit in draws.sample(range(8 * len(whole)), 300):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.mmc (is|has)"):
            read_mmc(path)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"a\.mmc is (cut short|no \.mmc)"):
            read_mmc(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        read_mmc(path)


def test_a_later_version_is_refused(tmp_path):
    path = tmp_path / "a.mmc"
    write_mmc(draw(1, 5), path, SPEC)
    data = bytearray(path.read_bytes())
    data[8] = 2
    path.write_bytes(data)
    with pytest.raises(ValueError, match="of version 2, and this mmtok reads 1"):
        read_mmc(path)


# A checksum keeps out accidents; what somebody made up must not crash, nor take all memory.
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"frames":5', b'"frames":900000000000'),
        (b'"lengths":[5]', b'"lengths":[9]'),
        (b'"lengths":[5]', b'"lengths":[1]'),
        (b'"lengths":[5]', b'"lengths":"5"'),
        (b'"kinds":"1', b'"kinds":"7'),
        (b'"kinds":"1', b'"kinds":"0'),
        (b'"spec"', b'"spek"'),
        (b'[1024,', b'[4,'),
        (b'"float32"', b'"object"'),
        (b'{"lengths"', b'["lengths"'),
        (b'[1]]]', b'[-8]]]'),
    ],
)  # fmt: skip
def test_what_is_made_up_is_refused(old, new, tmp_path):
    path = tmp_path / "a.mmc"
    write_mmc(draw(1, 5, extras={"gain": torch.ones(1)}), path, SPEC)
    data = path.read_bytes()
    magic, version, header, body = struct.unpack_from("<8sHIQ", data)
    text = data[22 : 22 + header]
    assert old in text
    text = text.replace(old, new, 1)
    data = struct.pack("<8sHIQ", magic, version, len(text), body) + text + data[22 + header : -4]
    path.write_bytes(data + struct.pack("<I", zlib.crc32(data)))
    with pytest.raises(ValueError, match=r"no sense|damaged"):
        read_mmc(path)


def test_ids_and_extras_that_do_not_fit_are_not_written(tmp_path):
    codes = draw(1, 5)
    codes.ids[0, 1, 0] = 1000
    with pytest.raises(ValueError, match=r"-1 \.\. 999"):
        write_mmc(codes, tmp_path / "a.mmc", SPEC)
    with pytest.raises(ValueError, match="6 levels, and the spec 2"):
        write_mmc(draw(1, 5), tmp_path / "a.mmc", CodeSpec("audio", (4, 4)))
    with pytest.raises(ValueError, match=r"extras\.gain is complex64"):
        write_mmc(draw(1, 5, extras={"gain": torch.ones(1) * 1j}), tmp_path / "a.mmc", SPEC)
    assert not list(tmp_path.iterdir())
