"""Sounds to shards: segments, filters, bandwidth, features, and what names say."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from datamodules.audio import AudioConfig, AudioModule
from datamodules.build import Entry, build_shards
from datamodules.build.audio_datasets import KNOWN_SOUNDS
from datamodules.build.features import mfcc
from datamodules.build.measure import bandwidth, clipping
from datamodules.build.naming import NAMINGS, naming_of
from datamodules.build.presets import SOUNDS
from datamodules.build.source import Wanted
from datamodules.clip import resample
from datamodules.shards import ShardSet
from datamodules.sound import read_sound
from mmtok.schema import ConfigError
from tests.datamodules.test_build_debian import make_deb

soundfile = pytest.importorskip("soundfile")


def noise(seconds, rate=8_000, channels=1, level=0.1, seed=0):
    return np.random.default_rng(seed).normal(0, level, (int(seconds * rate), channels)).clip(-1, 0.99)


def encoded(samples, rate=8_000, **options):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, **({"format": "WAV", "subtype": "PCM_16"} | options))
    return buffer.getvalue()


def make(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def samples_of(out):
    """Key -> (set, members, class) over all sets."""
    found = {}
    for name in ("train", "val", "test"):
        if (out / name).exists():
            shards = ShardSet.open(out / name)
            for shard, count in enumerate(shards.counts):
                for i in range(count):
                    key, members = shards.read(shard, i)
                    label = shards.manifest.classes[int(members["cls"])] if "cls" in members else None
                    found[key] = (name, members, label)
    return found


def facts(out, split="train"):
    return ShardSet.open(out / split).manifest.provenance


def test_a_folder_of_sounds_becomes_segments_of_flac(tmp_path):
    long = noise(2.5)
    source = make(tmp_path / "in", {"bird/long.wav": encoded(long), "dog/short.wav": encoded(noise(0.5, seed=1))})
    report = build_shards(source, tmp_path / "out", seconds=1.0, val_fraction=0.0)
    found = samples_of(tmp_path / "out")
    assert sorted(found) == ["bird_long-0000", "bird_long-0001", "bird_long-0002", "dog_short"]
    assert {label for _, _, label in found.values()} == {"bird", "dog"}
    parts = [read_sound(found[f"bird_long-000{i}"][1]["flac"], "flac").samples for i in range(3)]
    assert max(part.shape[1] for part in parts) <= 8_000
    assert max(part.shape[1] for part in parts) - min(part.shape[1] for part in parts) <= 1
    np.testing.assert_allclose(np.concatenate(parts, axis=1)[0], long[:, 0], atol=1 / 16_384)
    assert report.sets["train"].kind == "audio"
    assert facts(tmp_path / "out")["sample_rates"] == {"8000": 2}
    assert facts(tmp_path / "out")["hours"] == pytest.approx(3 / 3600, abs=1e-4)


def test_what_is_built_is_what_the_data_module_reads(tmp_path):
    source = make(tmp_path / "in", {f"{i}.wav": encoded(noise(1, seed=i)) for i in range(12)})
    build_shards(source, tmp_path / "out", features="mfcc", sample_rate=16_000, val_fraction=0.3)
    config = AudioConfig(
        shards=str(tmp_path / "out/train"), sample_rate=16_000, seconds=0.5, batch_size=4, streams=1, workers=0,
        teacher="mfcc",
    )  # fmt: skip
    data = AudioModule(config)
    data.plan(seed=0, accumulate=1)
    batch = next(iter(data.train_dataloader()))
    assert batch["x"].shape == (4, 1, 8_000)
    assert batch["teacher"].shape == (4, 39, 25)
    assert batch["bad"] == []


def test_the_folder_decides_the_kind_by_what_it_holds_more_of(tmp_path):
    source = make(
        tmp_path / "in", {"a.wav": encoded(noise(1)), "b.flac": encoded(noise(1), format="FLAC"), "cover.png": b"?"}
    )
    assert build_shards(source, tmp_path / "a", val_fraction=0.0).sets["train"].kind == "audio"
    with pytest.raises(ValueError, match="none of the 1 pictures"):
        build_shards(source, tmp_path / "b", kind="images")
    with pytest.raises(ValueError, match=r"holds no sounds \(wav, flac"):
        build_shards(make(tmp_path / "other", {"a.png": b"?"}), tmp_path / "c", kind="audio")
    with pytest.raises(ConfigError, match="no kind 'sounds'"):
        build_shards(source, tmp_path / "d", kind="sounds")


def test_options_of_pictures_are_no_options_of_sounds(tmp_path):
    source = make(tmp_path / "in", {"a.wav": encoded(noise(1))})
    with pytest.raises(ConfigError, match="tile is no field of 'audio'"):
        build_shards(source, tmp_path / "out", tile=8)


def test_silent_clipped_and_short_segments_are_left_out_and_counted(tmp_path):
    """audio.md trap 34: what is silent has a loudness of minus infinity, and is no training sound."""
    half = np.concatenate([noise(1), np.zeros((8_000, 1))])
    files = {
        "half.wav": encoded(half),
        "good.wav": encoded(noise(1, seed=2)),
        "silent.wav": encoded(np.zeros((8_000, 1))),
        "clipped.wav": encoded(np.sign(noise(1)) * 0.99999, subtype="FLOAT"),
        "blip.wav": encoded(noise(0.01)),
        "none.wav": encoded(np.zeros((0, 1))),
        "page.wav": b"<html>404</html>",
    }
    report = build_shards(make(tmp_path / "in", files), tmp_path / "out", seconds=1.0, val_fraction=0.0)
    assert sorted(samples_of(tmp_path / "out")) == ["good", "half-0000"]
    assert facts(tmp_path / "out")["left_out"] == {"short": 1, "silent": 2, "clipped": 1}
    reasons = {key: reason.split(" (")[0] for key, reason in report.bad}
    assert reasons["silent"] == "silent"
    assert reasons["clipped"] == "clipped"
    assert reasons["blip"] == "short"
    assert reasons["none"] == "the sound is empty"
    assert set(json.loads((tmp_path / "out/left_out.json").read_text())) == set(reasons)
    assert "1 short, 2 silent, 1 clipped segments left out" in str(report)


def test_a_single_peak_at_full_scale_is_no_clipping():
    x = np.zeros((1, 1000), np.float32)
    x[0, ::100] = 1.0
    assert clipping(x) == 0
    x[0, 500:510] = -1.0
    assert clipping(x) == pytest.approx(0.01)


@pytest.mark.parametrize("source_rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("level", [0.3, 0.003])
def test_bandwidth_is_what_the_sound_was_recorded_with(source_rate, level):
    """Issue 5: a 48 kHz file with an 8 kHz ceiling does not pass unmarked."""
    sound = resample(noise(2, source_rate, level=level).T.astype(np.float32), source_rate, 48_000)
    sixteen_bits = (sound * 32768).round().astype(np.float32) / 32768
    assert bandwidth(sixteen_bits, 48_000) == pytest.approx(source_rate / 2, rel=0.06)


@pytest.mark.parametrize("cutoff", [4_000, 8_000])
def test_bandwidth_sees_through_the_ways_files_come_by_their_rate(cutoff):
    """Also where speech-like levels fall by 40 dB over the spectrum, and a click is as loud as the rest."""
    rate, length = 48_000, 96_000
    spectrum = np.fft.rfft(noise(2, rate)[:, 0])
    frequencies = np.fft.rfftfreq(length, 1 / rate)
    spectrum *= np.where(frequencies < cutoff, 10 ** (-2 * frequencies / cutoff), 0)
    sound = np.fft.irfft(spectrum, length).astype(np.float32)[None]
    sound[0, 50_000] = 0.5
    assert bandwidth(sound, rate) == pytest.approx(cutoff, rel=0.04)


@pytest.mark.parametrize("samples", [0, 1, 100, 2048])
def test_bandwidth_of_almost_nothing_is_a_number(samples):
    assert 0 <= bandwidth(np.zeros((1, max(1, samples)), np.float32), 48_000) <= 24_000


def test_narrow_files_are_marked_in_the_manifest_and_warned_about(tmp_path):
    upsampled = resample(noise(1, 8_000).T.astype(np.float32), 8_000, 48_000).T
    files = {"wide.wav": encoded(noise(1, 48_000), 48_000), "narrow.wav": encoded(upsampled, 48_000)}
    files["silent.wav"] = encoded(np.zeros((48_000, 1)), 48_000)  # left out, so no file of the set
    report = build_shards(make(tmp_path / "in", files), tmp_path / "out", val_fraction=0.0)
    found = facts(tmp_path / "out")["bandwidth"]
    assert found["narrow_files"] == ["narrow"]
    assert (found["files"], found["narrow_share"]) == (2, 0.5)
    assert 13_000 < found["median"] < 15_000
    assert "WARNING: 1 of 2 files hold nothing in the upper half" in str(report)
    info = ShardSet.open(tmp_path / "out" / "train").info()
    assert (info["sample rates"], info["hours"]) == ("48,000", 0.0006)


def test_raising_the_sample_rate_raises_no_bandwidth(tmp_path):
    source = make(tmp_path / "in", {"a.wav": encoded(noise(1))})
    report = build_shards(source, tmp_path / "out", sample_rate=24_000, val_fraction=0.0)
    assert "WARNING" in str(report)
    (_, members, _) = samples_of(tmp_path / "out")["a"]
    sound = read_sound(members["flac"], "flac")
    assert (sound.sample_rate, sound.samples.shape) == (24_000, (1, 24_000))


def test_channels_are_kept_or_mixed(tmp_path):
    source = make(tmp_path / "in", {"a.wav": encoded(noise(1, channels=2))})
    for channels, expected in ((None, 2), (1, 1)):
        options = {} if channels is None else {"channels": channels}
        build_shards(source, tmp_path / str(expected), val_fraction=0.0, **options)
        (_, members, _) = samples_of(tmp_path / str(expected))["a"]
        assert read_sound(members["flac"], "flac").samples.shape[0] == expected


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 16_000])
def test_features_have_a_frame_for_each_of_a_codecs(samples):
    found = mfcc(noise(samples / 16_000, 16_000).T.astype(np.float32), 16_000)
    assert found.shape == (39, -(-samples // 320))
    assert np.isfinite(found).all()


def test_a_frame_of_features_is_centred_on_its_samples():
    """audio.md trap 35: half a frame of shift is a frame of misalignment in places."""
    x = np.full((1, 16_000), 1e-4, np.float32) * np.sign(noise(1, 16_000).T)
    start = 320 * 20
    x[0, start : start + 320] = noise(0.02, 16_000)[:, 0]
    energy = mfcc(x.astype(np.float32), 16_000)[0]
    assert energy.argmax() == 20
    assert energy[19] == pytest.approx(energy[21], rel=0.3)


def test_features_that_do_not_divide_the_rate_are_refused_with_those_that_do(tmp_path):
    source = make(tmp_path / "in", {"a.wav": encoded(noise(1, 11_025), 11_025)})
    with pytest.raises(ConfigError, match=r"11025 Hz cannot be divided.*--sample-rate 16000"):
        build_shards(source, tmp_path / "out", features="mfcc", val_fraction=0.0)
    with pytest.raises(ConfigError, match=r"no features 'mfc'. Did you mean mfcc"):
        build_shards(source, tmp_path / "b", features="mfc")


DIGITS = [f"recordings/{digit}_{who}_{i}.wav" for digit in range(3) for who in ("ann", "bob", "cem") for i in range(7)]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A zip with names like those of the Free Spoken Digit Dataset."""
    path = tmp_path_factory.mktemp("digits") / "digits.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i, name in enumerate(DIGITS):
            archive.writestr(name, encoded(noise(0.2, seed=i)))
    return path


def sides(out, part):
    found = {}
    for key, (side, _, _) in samples_of(out).items():
        found.setdefault(key.removeprefix("recordings_").split("_")[part], set()).add(side)
    return found


def test_digits_have_their_class_and_no_speaker_is_on_both_sides(digits, tmp_path):
    build_shards(str(digits), tmp_path / "out", val_fraction=0.4)
    found = samples_of(tmp_path / "out")
    assert {label for _, _, label in found.values()} == {"0", "1", "2"}
    assert all(key.removeprefix("recordings_")[0] == label for key, (_, _, label) in found.items())
    by_speaker = sides(tmp_path / "out", 1)
    assert all(len(side) == 1 for side in by_speaker.values())
    assert set.union(*by_speaker.values()) == {"train", "val"}


def test_split_by_file_the_digits_keep_their_usual_test_set(digits, tmp_path):
    report = build_shards(str(digits), tmp_path / "out", split_by="file")
    assert {split: manifest.samples for split, manifest in report.sets.items()} == {"train": 18, "test": 45}
    assert all(len(side) == 2 for side in sides(tmp_path / "out", 1).values())
    assert sides(tmp_path / "out", 2) == {str(i): {"test" if i < 5 else "train"} for i in range(7)}


def test_a_pattern_of_ones_own_names_class_speaker_and_set(tmp_path):
    files = {
        f"dev-x/{who}-{word}-{i}.wav": encoded(noise(0.2)) for who in "ab" for word in ("yes", "no") for i in (1, 2)
    }
    files |= {"train-x/c-yes-1.wav": encoded(noise(0.2))}
    source = make(tmp_path / "in", files)
    pattern = r"(?P<split>dev|train)-x/(?P<speaker>[a-z])-(?P<label>[a-z]+)-"
    build_shards(source, tmp_path / "out", names=pattern)
    found = samples_of(tmp_path / "out")
    assert {label for _, _, label in found.values()} == {"yes", "no"}
    assert {key: side for key, (side, _, _) in found.items()}["train-x_c-yes-1"] == "train"
    assert [side for side, _, _ in found.values()].count("val") == 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": "(?P<label>"}, "is no regular expression"),
        ({"names": r"(?P<label>\d)_"}, "does not match '/a'"),
        ({"split_by": "speaker"}, "needs names=PATTERN"),
        ({"split_by": "speakers"}, "must be file or speaker"),
        ({"names": "(?P<label>a)", "split_by": "speaker"}, "says no speaker"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused(options, says, tmp_path):
    source = make(tmp_path / "in", {"a.wav": encoded(noise(1))})
    with pytest.raises(ValueError, match=says):
        build_shards(source, tmp_path / "out", **options)


def test_names_are_recognised_only_where_all_follow_them():
    assert naming_of(DIGITS, Wanted()) is NAMINGS["fsdd"]
    assert naming_of([*DIGITS, "readme.wav"], Wanted()) is None


def test_a_package_of_sounds_is_taken_as_such(tmp_path):
    files = {f"usr/share/chimes/bells/{i}.wav": encoded(noise(0.5, seed=i)) for i in range(4)}
    make_deb(tmp_path / "a.deb", "chimes", files | {"usr/share/chimes/icon.png": b"?"})
    build_shards(str(tmp_path / "a.deb"), tmp_path / "out", val_fraction=0.0)
    assert {label for _, _, label in samples_of(tmp_path / "out").values()} == {"bells"}


STAMPS = "usr/share/tuxpaint/stamps/animals"
CASES = {
    "asterisk-core-sounds-fr-g722": (
        {"usr/share/asterisk/sounds/fr_CA_f_June/digits/1.wav": ("fr", "asterisk_sounds_fr_CA_f_June_digits_1")},
        "asterisk",
    ),
    "fillets-ng-data-cs": ({"usr/share/games/fillets-ng/sound/airplane/cs/let.ogg": ("cs", "airplane")}, "fillets"),
}


@pytest.mark.parametrize("package", CASES)
def test_known_packages_say_language_by_name(package, tmp_path):
    expected, preset = CASES[package]
    files = {name: encoded(noise(0.5)) for name in expected} | {"usr/share/other/music.ogg": encoded(noise(0.5))}
    make_deb(tmp_path / "a.deb", package, files)
    report = build_shards(str(tmp_path / "a.deb"), tmp_path / "out", val_fraction=0.0)
    assert [label for _, _, label in samples_of(tmp_path / "out").values()] == [label for label, _ in expected.values()]
    assert report.sets["train"].licence == SOUNDS[preset].licence


def test_stamps_speak_and_sound_and_no_name_is_on_both_sides(tmp_path, monkeypatch):
    words = ("hen", "frog", "frog-1", "cow", "dog", "ant", "bee", "cat")
    files = {
        f"{STAMPS}/{word}{tail}": encoded(noise(0.3))
        for word in words
        for tail in (".ogg", "_desc.ogg", "_desc_fr.wav")
    }
    files |= {f"{STAMPS}/{word}{i}.png": b"?" for word in words for i in "abc"}  # more than there are sounds
    make_deb(tmp_path / "tuxpaint-stamps-default_1_all.deb", "tuxpaint-stamps-default", files)
    (tmp_path / "cache/debian").mkdir(parents=True)
    (tmp_path / "tuxpaint-stamps-default_1_all.deb").rename(tmp_path / "cache/debian/tuxpaint-stamps-default_1_all.deb")
    for name, labels, count in (("speech", {"en", "fr"}, 16), ("effects", {"animals"}, 8)):
        build_shards(f"debian:tuxpaint-{name}", tmp_path / name, cache=str(tmp_path / "cache"), val_fraction=0.4)
        found = samples_of(tmp_path / name)
        assert {label for _, _, label in found.values()} == labels
        assert len(found) == count
        for word in ("hen", "frog", "cow"):
            assert len({side for key, (side, _, _) in found.items() if f"_{word}" in key}) == 1


def test_spoken_names_bring_the_caption_of_their_stamp_in_their_language(tmp_path):
    files = {f"{STAMPS}/hen_desc{tail}": encoded(noise(0.3)) for tail in (".ogg", "_fr.ogg", "_de.ogg")}
    captions = "A hen.\nfr.utf8=Une poule.\nes.utf8=Una gallina.\n"
    files |= {f"{STAMPS}/hen.txt": captions.encode(), f"{STAMPS}/cow_desc.ogg": encoded(noise(0.3))}
    (tmp_path / "debian").mkdir()
    make_deb(tmp_path / "debian/tuxpaint-stamps-default_1_all.deb", "tuxpaint-stamps-default", files)
    build_shards("debian:tuxpaint-speech", tmp_path / "out", cache=str(tmp_path), val_fraction=0.0)
    found = {
        key.rpartition("animals_")[2]: members.get("txt", b"").decode()
        for key, (_, members, _) in samples_of(tmp_path / "out").items()
    }
    assert found == {"hen_desc": "A hen.", "hen_desc_fr": "Une poule.", "hen_desc_de": "", "cow_desc": ""}


def test_several_packages_are_one_source_and_all_are_named(tmp_path):
    (tmp_path / "debian").mkdir()
    for language in ("cs", "nl"):
        files = {f"usr/share/games/fillets-ng/sound/a{i}/{language}/x.ogg": encoded(noise(0.3)) for i in range(4)}
        make_deb(tmp_path / f"debian/fillets-ng-data-{language}_1_all.deb", f"fillets-ng-data-{language}", files)
    build_shards("debian:fillets", tmp_path / "out", cache=str(tmp_path), val_fraction=0.5)
    found = samples_of(tmp_path / "out")
    assert {label for _, _, label in found.values()} == {"cs", "nl"}
    assert [one["package"] for one in facts(tmp_path / "out")["packages"]] == [
        "fillets-ng-data-cs",
        "fillets-ng-data-nl",
    ]
    for level in range(4):
        assert len({side for key, (side, _, _) in found.items() if f"_a{level}_" in key}) == 1


def test_the_same_build_gives_the_same_bytes_whatever_the_workers(tmp_path):
    source = make(tmp_path / "in", {f"{i}.wav": encoded(noise(1, seed=i)) for i in range(9)})
    digests = []
    for workers in (1, 4):
        report = build_shards(source, tmp_path / str(workers), workers=workers, sample_rate=12_000, features="mfcc")
        digests.append([shard.sha256 for manifest in report.sets.values() for shard in manifest.shards])
    assert digests[0] == digests[1]


class FakeSounds:
    """Leaves files where torchaudio's LIBRISPEECH would unpack them."""

    def __init__(self, root, download, url):
        assert download
        for speaker in (11, 12):
            make(
                Path(root), {f"LibriSpeech/{url}/{speaker}/7/{speaker}-7-{i}.flac": encoded(noise(0.2)) for i in (1, 2)}
            )
        make(Path(root), {"LibriSpeech/BOOKS.TXT": b"", "LibriSpeech/noise.flac": b""})


def test_a_torchaudio_dataset_is_read_without_torchaudios_reader(monkeypatch, tmp_path):
    """audio.md 7: torchaudio.load needs TorchCodec and FFmpeg, and its datasets call it."""
    monkeypatch.setattr("torchaudio.datasets.LIBRISPEECH", FakeSounds)
    report = build_shards("torchaudio:librispeech", tmp_path / "out", cache=str(tmp_path / "cache"))
    assert {split: manifest.samples for split, manifest in report.sets.items()} == {"train": 4, "val": 4, "test": 4}


def test_an_unreachable_torchaudio_dataset_names_the_remedy(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchaudio.datasets.YESNO", offline)
    with pytest.raises(ValueError, match=r"Is this machine online.*mmtok shards build fixture"):
        build_shards("torchaudio:yesno", tmp_path / "out", cache=str(tmp_path))
    with pytest.raises(ValueError, match=r"torchaudio:yesno|Did you mean yesno"):
        build_shards("torchaudio:yesn", tmp_path / "out", cache=str(tmp_path))


NAMES_OF_SETS = {
    "yesno": ("waves_yesno/0_1_1_0_1_0_1_1.wav", None, None),
    "speechcommands": ("SpeechCommands/speech_commands_v0.02/yes/0a7c2a8d_nohash_0.wav", "yes", "0a7c2a8d"),
    "ljspeech": ("LJSpeech-1.1/wavs/LJ001-0001.wav", None, None),
    "libritts": ("LibriTTS/dev-clean/84/121123/84_121123_000007_000001.wav", None, "84"),
    "vctk": ("VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic2.flac", None, "p225"),
    "gtzan": ("genres/blues/blues.00000.wav", "blues", None),
}


@pytest.mark.parametrize("name", NAMES_OF_SETS)
def test_the_names_in_torchaudios_sets_are_understood(name):
    import torchaudio.datasets

    path, label, speaker = NAMES_OF_SETS[name]
    known = KNOWN_SOUNDS[name]
    assert hasattr(torchaudio.datasets, known.cls)
    entry = known.naming.apply(Entry("key", group="file", read=dict), path, None)
    assert (entry.label, entry.group) == (label, f"speaker:{speaker}" if speaker else "file")
