"""The decoding seam: every format, parts of a file, and what is damaged or made to harm."""

import io
import struct
import sys

import numpy as np
import pytest

from datamodules import sound
from datamodules.decode import decode, sound_extension
from datamodules.shardindex import DecodeError
from datamodules.sound import BY_AV, BY_SOUNDFILE, SOUNDS, probe, read_sound
from mmtok.schema import ConfigError

RATE = 16_000
WRITTEN = {
    "wav": {"format": "WAV"}, "flac": {"format": "FLAC"}, "aiff": {"format": "AIFF"}, "ogg": {"format": "OGG"},
    "opus": {"format": "OGG", "subtype": "OPUS"}, "mp3": {"format": "MP3"},
}  # fmt: skip
ENCODERS = {"g722": "g722", "m4a": "aac", "aac": "aac", "mka": "aac"}
CONTAINERS = BY_AV | {"aac": "adts", "m4a": "mp4"}


def tone(seconds=2.0, channels=1, rate=RATE):
    """(S, C): notes that change, so that a shift shows."""
    time = np.arange(int(seconds * rate)) / rate
    notes = [0.3 * np.sin(2 * np.pi * (200 + 90 * c) * time * (1 + 0.3 * time)) for c in range(channels)]
    return np.stack(notes, axis=1).astype(np.float32)


def written(samples, extension="wav", rate=RATE, **options):
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **(WRITTEN[extension] | options))
    return buffer.getvalue()


def encoded(samples, extension, rate=RATE):
    """As FFmpeg writes it."""
    av = pytest.importorskip("av")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=CONTAINERS[extension]) as container:
        stream = container.add_stream(
            ENCODERS[extension], rate=rate, layout="mono" if samples.shape[1] == 1 else "stereo"
        )
        frame = av.AudioFrame.from_ndarray((samples.T * 32767).astype(np.int16).reshape(1, -1), "s16", "mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.codec_context.format, stream.codec_context.layout, rate)
        for one in [*resampler.resample(frame), None]:
            container.mux(stream.encode(one))
    return buffer.getvalue()


def content(extension, samples=None):
    samples = tone() if samples is None else samples
    return written(samples, extension) if extension in WRITTEN else encoded(samples, extension)


@pytest.mark.parametrize("extension", [*WRITTEN, *ENCODERS])
def test_every_format_gives_its_samples_and_its_rate(extension):
    data = content(extension)
    samples, rate = read_sound(data, extension)
    assert rate in (RATE, 48_000) if extension == "opus" else rate == RATE
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    assert samples.shape[0] == 1
    info = probe(data, extension)
    assert (info.sample_rate, info.channels, info.frames) == (rate, 1, samples.shape[1])
    assert abs(info.seconds - 2) < 0.15
    assert 0.25 < np.abs(samples).max() < 0.45
    if extension in ("wav", "flac", "aiff"):
        np.testing.assert_allclose(samples[0], tone()[:, 0], atol=1 / 32768)


@pytest.mark.parametrize("extension", [*WRITTEN, *ENCODERS])
def test_a_part_is_the_same_slice_of_the_whole(extension):
    """audio.md 7: what torchaudio.load gives by decoding the whole file."""
    data = content(extension)
    whole = read_sound(data, extension).samples
    for start, frames in ((0, 100), (1, 5000), (12_345, 7000), (whole.shape[1] - 10, 10), (20_000, None)):
        part = read_sound(data, extension, start, frames).samples
        expected = whole[:, start:] if frames is None else whole[:, start : start + frames]
        np.testing.assert_allclose(part, expected, atol=1e-6)


@pytest.mark.parametrize("extension", ["wav", "g722"])
def test_a_part_beyond_the_end_is_what_is_left(extension):
    data = content(extension)
    frames = probe(data, extension).frames
    assert read_sound(data, extension, frames - 5, 100).samples.shape == (1, 5)
    assert read_sound(data, extension, frames + 5, 100).samples.shape == (1, 0)


def test_channels_stand_first():
    samples = tone(channels=2)
    np.testing.assert_allclose(read_sound(written(samples), "wav").samples, samples.T, atol=1 / 32768)


def test_the_whitelist_decodes_sounds_by_extension():
    assert decode("flac", written(tone(), "flac")).sample_rate == RATE
    assert sound_extension({"cls": b"", "a.flac": b""}) == "a.flac"
    with pytest.raises(DecodeError, match=r"no sound among \['png'\]"):
        sound_extension({"png": b""})


@pytest.mark.parametrize("extension", SOUNDS)
def test_empty_content_is_refused(extension):
    pytest.importorskip("av")
    with pytest.raises(DecodeError, match="empty"):
        read_sound(b"", extension)


@pytest.mark.parametrize("extension", [e for e in SOUNDS if e != "g722"])
@pytest.mark.parametrize("data", [b"x", b"RIFF", b"<html>404</html>" * 20, bytes(4096), b"ID3\4" + bytes(60)])
def test_what_is_no_sound_is_refused(extension, data):
    pytest.importorskip("av")
    for look in (read_sound, probe):
        with pytest.raises(DecodeError):
            look(data, extension)


@pytest.mark.parametrize("extension", ["wav", "flac", "aiff"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_is_refused_where_its_header_tells(extension, share):
    data = written(np.random.default_rng(0).normal(0, 0.1, (RATE, 1)).astype(np.float32), extension)
    with pytest.raises(DecodeError, match=r"cut short|no readable sound"):
        read_sound(data[: int(len(data) * share)], extension)


def test_damage_inside_never_ends_in_another_error():
    """A damaged file must cost one sample, not the run."""
    noise = np.random.default_rng(0)
    for extension in (*WRITTEN, *ENCODERS):
        data = content(extension, tone(0.5))
        for _ in range(20):
            bad = bytearray(data)
            at = int(noise.integers(0, len(bad) - 8))
            bad[at : at + 8] = noise.bytes(8)
            try:
                samples = read_sound(bytes(bad), extension).samples
            except DecodeError:
                continue
            assert np.isfinite(samples).all()


def wav_header(channels=1, rate=RATE, size=0xFFFFFFFF, frames=100):
    body = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * 2 % 2**32, 2 * channels, 16)
    return struct.pack("<4sI4s", b"RIFF", size, b"WAVE") + body + struct.pack("<4sI", b"data", size) + bytes(2 * frames)


@pytest.mark.parametrize("fields", [{"channels": 0}, {"channels": 900}, {"rate": 1}, {"rate": 0xFFFFFFF0}, {"rate": 0}])
def test_an_absurd_header_is_refused(fields):
    with pytest.raises(DecodeError):
        read_sound(wav_header(**fields), "wav")


def test_a_stream_of_unknown_length_is_read_to_its_end():
    """FFmpeg cannot go back in a pipe to write the length, and leaves the largest number."""
    assert read_sound(wav_header(frames=100), "wav").samples.shape == (1, 100)


def test_a_header_that_promises_hours_takes_no_memory(monkeypatch):
    data = bytearray(written(tone(), "flac"))
    data[21] |= 0x0F  # STREAMINFO: 36 bits of total samples
    data[22:26] = b"\xff" * 4
    with pytest.raises(DecodeError, match="too many"):
        read_sound(bytes(data), "flac")
    assert probe(bytes(data), "flac").frames > 1 << 35


@pytest.mark.parametrize("extension", ["flac", "g722"])
def test_too_much_at_once_is_refused_and_a_part_of_it_is_not(extension, monkeypatch):
    monkeypatch.setattr(sound, "MAX_VALUES", 10_000)
    data = content(extension)
    with pytest.raises(DecodeError, match="too many"):
        read_sound(data, extension)
    assert read_sound(data, extension, 20_000, 10_000).samples.shape == (1, 10_000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(value):
    samples = tone()
    samples[100] = value
    with pytest.raises(DecodeError, match="no numbers"):
        read_sound(written(samples, "wav", subtype="FLOAT"), "wav")


@pytest.mark.parametrize("extension", [e for e in BY_AV if e != "g722"])
def test_a_playlist_is_not_followed(extension, tmp_path):
    """FFmpeg would open the files and addresses that a playlist names, whatever its extension."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(written(tone()))
    for playlist in (f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        with pytest.raises(DecodeError):
            read_sound(playlist.encode(), extension)


def test_other_formats_of_libsndfile_are_refused():
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), RATE, format="MAT5")
    with pytest.raises(DecodeError, match="MAT5"):
        read_sound(buffer.getvalue(), "wav")


@pytest.mark.parametrize(("package", "extension"), [("soundfile", "wav"), ("av", "g722")])
def test_a_missing_package_says_how_to_install_it(package, extension, monkeypatch):
    """Not as a bad sample: every one of them would be."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=r"mmtok\[audio\]"):
        read_sound(b"something", extension)
    with pytest.raises(ConfigError, match=r"mmtok\[audio\]"):
        sound.require((extension,))
    assert not isinstance(ConfigError("x"), DecodeError)


def test_every_extension_has_a_reader():
    assert set(BY_SOUNDFILE).isdisjoint(BY_AV)
