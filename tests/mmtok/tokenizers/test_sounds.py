"""Sounds in every usual form become x, whole or in pieces; resampling is torchaudio's."""

import io
import wave

import numpy as np
import pytest
import torch

from mmtok.tokenizers.sounds import file_blocks, file_seconds, limit, read_sound, resample, resample_pieces, write_wave


def noise(*shape, scale=0.3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).mul(scale).clamp(-1, 1)


def pieces_of(x, sizes):
    return x.split([*sizes, x.shape[-1] - sum(sizes)], -1)


@pytest.mark.parametrize(
    ("rate", "new"), [(44100, 24000), (16000, 24000), (48000, 8000), (22050, 16000), (8000, 44100)]
)
@pytest.mark.parametrize("samples", [1, 7, 1000, 30001])
def test_resampling_equals_torchaudio(rate, new, samples):
    functional = pytest.importorskip("torchaudio.functional")
    x = noise(2, samples)
    # In float64: its filter in float32 is off by as much as 1e-5.
    want = functional.resample(x.double(), rate, new).float()
    torch.testing.assert_close(resample(x, rate, new), want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (100, 0, 3000), (9999,)])
def test_resampling_in_pieces_equals_resampling_the_whole(sizes):
    x = noise(1, 2, 10007)
    joined = torch.cat(list(resample_pieces(pieces_of(x, sizes), 44100, 24000)), 2)
    torch.testing.assert_close(joined, resample(x, 44100, 24000), atol=1e-6, rtol=0)


def test_rates_without_a_common_divisor_are_refused():
    with pytest.raises(ValueError, match="no common divisor"):
        resample(noise(10), 44100, 24001)


def test_a_written_wave_reads_back_to_the_bit(tmp_path):
    x = torch.randint(-32768, 32768, (1, 2, 999)).float() / 32768
    write_wave(iter(x.split(100, 2)), tmp_path / "a.wav", 16000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16000, 2, 999)
    torch.testing.assert_close(read_sound(tmp_path / "a.wav", 16000, 2), x, atol=0, rtol=0)
    data = (tmp_path / "a.wav").read_bytes()
    torch.testing.assert_close(read_sound(data, 16000, 2), x, atol=0, rtol=0)


def test_full_scale_is_cut_off_in_files_not_wrapped(tmp_path):
    write_wave([torch.tensor([[[1.0, -1.0, 1.5, -1.5]]])], tmp_path / "a.wav", 8000)
    got = read_sound(tmp_path / "a.wav", 8000, 1)
    assert got.flatten().tolist() == [32767 / 32768, -1.0, 32767 / 32768, -1.0]


def test_a_file_in_blocks_equals_the_file(tmp_path):
    write_wave([noise(1, 2, 30011)], tmp_path / "a.wav", 44100)
    blocks = file_blocks(tmp_path / "a.wav", 24000, 1, 1000)
    assert file_seconds(tmp_path / "a.wav") == pytest.approx(30011 / 44100)
    torch.testing.assert_close(torch.cat(list(blocks), 2), read_sound(tmp_path / "a.wav", 24000, 1), atol=1e-6, rtol=0)


def test_mono_becomes_stereo_and_stereo_mono():
    x = noise(2, 50)
    assert torch.equal(read_sound(x, 8000, 1)[0, 0], x.mean(0))
    assert torch.equal(read_sound(x[0], 8000, 2), x[0].expand(1, 2, 50))
    with pytest.raises(ValueError, match="3 channels cannot become one of 2"):
        read_sound(noise(3, 50), 8000, 2)


def test_integers_are_taken_by_their_full_scale():
    assert read_sound(np.array([-32768, 16384], np.int16), 8000, 1).flatten().tolist() == [-1.0, 0.5]
    assert read_sound(np.array([0, 192], np.uint8), 8000, 1).flatten().tolist() == [-1.0, 0.5]
    assert read_sound(np.array([-(2**31), 2**30], np.int32), 8000, 1).flatten().tolist() == [-1.0, 0.5]


# audio.md trap 34: loud and broken sounds are said, not passed on.
def test_overshoot_is_cut_off_and_loudness_said():
    assert limit(torch.tensor([[[1.05, -1.05]]])).flatten().tolist() == [1.0, -1.0]
    with pytest.warns(UserWarning, match=r"reaches 1\.5"):
        limit(torch.tensor([[[1.5]]]))
    with pytest.raises(ValueError, match="Divide by 32768"):
        limit(torch.tensor([[[12000.0]]]))
    with pytest.raises(ValueError, match="not finite"):
        read_sound(torch.tensor([0.0, torch.nan]), 8000, 1, 16000)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"no sound at all", "cannot be read as a sound"),
        (b"", "is empty"),
        ("no/such.wav", "There is no sound at"),
        (np.zeros((100, 2)), "transpose it"),
        (np.zeros(0), "at least one sample"),
        (np.zeros(3, np.int64), "integers of 8"),
        (3.0, "a path, bytes or an array"),
    ],
)
def test_what_is_no_sound_is_refused_by_name(source, said):
    with pytest.raises(ValueError, match=said):
        read_sound(source, 8000, 1)


def test_a_wave_file_that_was_cut_is_refused_and_not_taken_for_a_shorter_one(tmp_path):
    path = tmp_path / "talk.wav"
    write_wave([torch.zeros(1, 1, 800)], path, 8000)
    whole = path.read_bytes()
    assert read_sound(path, 8000, 1).shape == (1, 1, 800)
    path.write_bytes(whole[:900])
    for source in (path, whole[:900]):
        with pytest.raises(ValueError, match=r"cut short: 900 of 1,644 bytes"):
            read_sound(source, 8000, 1)
    with pytest.raises(ValueError, match="cut short"):
        next(file_blocks(path, 8000, 1))


def test_a_header_that_knows_no_length_is_believed(tmp_path):
    # What ffmpeg writes to a pipe: the lengths of what cannot be known before its end.
    path = tmp_path / "piped.wav"
    write_wave([torch.zeros(1, 1, 800)], path, 8000)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert read_sound(bytes(data), 8000, 1).shape == (1, 1, 800)


def test_a_file_says_its_rate_itself():
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(200))
    with pytest.raises(ValueError, match="Leave sample_rate out"):
        read_sound(buffer.getvalue(), 8000, 1, 8000)
