"""Crops of sounds: places, padding, teacher features, and batches that do not depend on ranks or workers."""

import io
import pickle
from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from datamodules.audio import AudioConfig, AudioModule
from datamodules.base import datamodules
from datamodules.decode import DecodeError
from datamodules.images import ImagesConfig
from datamodules.reader import SlotSample
from datamodules.writer import ShardWriter
from mmtok.schema import ConfigError

soundfile = pytest.importorskip("soundfile")

RATE = 1_000
CONFIG = AudioConfig(shards="unused", sample_rate=RATE, seconds=0.1, batch_size=8, streams=2, shuffle=8, workers=0)


def flac(samples, rate=RATE):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def counting(length, channels=1):
    """Samples whose value says where they stand: 1 at the first one, and no zero."""
    return np.repeat((np.arange(length, dtype=np.int16) + 1)[:, None], channels, axis=1)


def sample(samples, seed=0, rate=RATE, **members):
    return SlotSample("a", {"flac": flac(samples, rate)} | members, seed, slot=0)


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def starts(config, length, count=400, **members):
    """Where crops begin, by their first value."""
    data = AudioModule(config)
    found = []
    for seed in range(count):
        crops, _, _ = data.item(sample(counting(length), seed, **members), training=True)
        found += [int(crop.samples[0, 0]) - 1 for crop in crops]
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Forty clips of 60 to 450 samples, four of them to validate on."""
    folder = tmp_path_factory.mktemp("shards")
    for split, count in (("train", 40), ("val", 5)):
        with ShardWriter(folder / split, kind="audio", split=split, samples_per_shard=10) as writer:
            for i in range(count):
                length = 60 + 10 * i
                features = npy(np.arange(length // 10 + 1, dtype=np.float16)[None].repeat(3, 0))
                members = {"flac": flac(counting(length)), "cls": str(i % 3).encode(), "mfcc.npy": features}
                writer.add(f"{split}{i}", members)
    return folder


def module(config, shards, *, rank=0, world=1, step=0, accumulate=1, seed=3):
    data = AudioModule(replace(config, shards=str(shards / "train")))
    data.plan(seed=seed, accumulate=accumulate)
    data.trainer = SimpleNamespace(global_rank=rank, world_size=world, global_step=step)
    return data


def first(data, count):
    return [(batch["key"], batch["x"], batch["lengths"]) for batch in islice(data.train_dataloader(), count)]


def same(left, right):
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(left, right, strict=True))


def test_the_data_block_chooses_its_module_by_name():
    config = datamodules.parse({"name": "audio", "shards": "x", "seconds": 0.5, "sample_rate": 16_000}, "data")
    assert isinstance(datamodules.build(config), AudioModule)
    assert config.shape == (8_000,)
    assert ImagesConfig(shards="x", image_size=32).shape == (32, 32)


def test_every_place_of_a_clip_is_drawn_the_last_one_too():
    """audio.md trap 35: randint(0, length - size) never gives the last."""
    found = Counter(starts(CONFIG, 105))
    assert set(found) == set(range(6))
    assert min(found.values()) > 30


def test_a_clip_as_long_as_the_crop_has_one_place():
    assert set(starts(CONFIG, 100, 5)) == {0}


def test_crops_depend_on_the_slots_seed_alone():
    data = AudioModule(CONFIG)
    (one,), (again,), (other,) = (data.item(sample(counting(900), s), training=True)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one.samples, again.samples)
    assert not np.array_equal(one.samples, other.samples)


def test_shorter_clips_are_padded_at_their_end():
    data = AudioModule(CONFIG)
    batch = data.batch([data.item(sample(counting(length)), training=True) for length in (30, 100, 300)])
    assert batch["x"].shape == (3, 1, 100)
    assert batch["lengths"].tolist() == [30, 100, 100]
    assert batch["x"][0, 0, 30:].abs().max() == 0
    assert batch["x"][0, 0, :30].tolist() == list(range(1, 31))


def test_sixteen_bits_arrive_exactly_and_full_scale_is_one():
    data = AudioModule(CONFIG)
    extremes = np.array([[-32768], [32767], [0], [1]] * 25, dtype=np.int16)
    batch = data.batch([data.item(sample(extremes), training=True)])
    assert batch["x"].dtype == torch.int16
    signal = data.on_after_batch_transfer(batch, 0)["x"]
    assert signal.dtype == torch.float32
    assert (signal[0, 0, :4] * 32768).tolist() == [-32768, 32767, 0, 1]
    assert signal.abs().max() <= 1


@pytest.mark.parametrize("crops", [1, 3])
def test_several_crops_come_of_one_decoding(crops):
    data = AudioModule(replace(CONFIG, crops=crops, batch_size=6))
    items = [data.item(sample(counting(900), seed), training=True) for seed in range(2)]
    batch = data.batch(items)
    assert batch["x"].shape == (2 * crops, 1, 100)
    expected = [items[i][0][k].samples for k in range(crops) for i in range(2)]
    np.testing.assert_array_equal(batch["x"].numpy(), np.stack(expected))
    assert len({x.tobytes() for x in batch["x"].numpy()}) == 2 * crops


def test_the_batch_counts_crops(shards):
    ((keys, x, _),) = first(module(replace(CONFIG, crops=4), shards), 1)
    assert x.shape == (8, 1, 100)
    assert len(set(keys)) == 2
    with pytest.raises(ValueError, match="crops=3"):
        replace(CONFIG, crops=3)
    with pytest.raises(ValueError, match=r"2 ranks .* x 8 crops a clip\. Use 16"):
        first(module(replace(CONFIG, crops=8), shards, world=2), 1)


@pytest.mark.parametrize("crops", [1, 2])
def test_ranks_hold_every_second_item_of_the_global_batch(shards, crops):
    """audio.md traps 36, 37: no rank reads what another does; and draws for the whole batch fall on the same items."""
    config = replace(CONFIG, crops=crops)
    ((keys, whole, _),) = first(module(config, shards), 1)
    for rank in range(2):
        ((own_keys, own, _),) = first(module(config, shards, rank=rank, world=2), 1)
        assert own_keys == keys[rank::2]
        assert torch.equal(own, whole[rank::2])


def test_workers_and_restarts_change_nothing(shards):
    whole = first(module(CONFIG, shards), 8)
    assert same(first(module(replace(CONFIG, workers=2), shards), 5), whole[:5])
    assert same(first(module(replace(CONFIG, workers=2), shards, step=3), 5), whole[3:])


def test_it_goes_to_a_spawned_worker(shards):
    data = module(CONFIG, shards)
    copy = pickle.loads(pickle.dumps(data.train_dataloader().dataset))
    assert torch.equal(next(iter(copy))["x"], first(data, 1)[0][1])


def test_validation_gives_whole_clips_in_order(shards):
    data = module(replace(CONFIG, val_batch_size=3, val_seconds=0.09), shards)
    batches = list(data.val_dataloader())
    assert [key for batch in batches for key in batch["key"]][:5] == [f"val{i}" for i in range(5)]
    assert batches[0]["lengths"].tolist() == [60, 70, 80]
    assert batches[0]["x"].shape == (3, 1, 80)
    assert batches[1]["lengths"].tolist()[:2] == [90, 90]
    assert batches[0]["x"][0, 0, 59:62].tolist() == [60, 0, 0]
    assert batches[1]["valid"] == [True, True, False]
    assert batches[0]["label"].tolist() == [0, 1, 2]


def test_a_sample_without_a_class_has_label_minus_one():
    assert AudioModule(CONFIG).item(sample(counting(100)), training=True)[1] == -1


def test_stereo_becomes_one_channel_and_other_rates_are_resampled():
    data = AudioModule(CONFIG)
    left_right = np.concatenate([counting(200), 3 * counting(200)], axis=1).astype(np.int16)
    (crop,), _, _ = data.item(sample(left_right, seed=1), training=True)
    assert crop.samples.shape == (1, 100)
    assert crop.samples[0, 1] - crop.samples[0, 0] == 2
    (crop,), _, _ = data.item(sample(counting(400), rate=2 * RATE), training=False)
    assert crop.length == 200
    assert crop.samples[0, 100] == pytest.approx(201, abs=2)


def teacher_of(length, hop=10):
    """(3, T) features whose value is the number of the frame."""
    return npy(np.arange(length // hop + 1, dtype=np.float32)[None].repeat(3, 0))


TEACHER = replace(CONFIG, teacher="mfcc", teacher_rate=100.0)


def test_teacher_features_are_those_of_the_cropped_samples():
    """audio.md trap 35: starts between frames shift them by up to one."""
    data = AudioModule(TEACHER)
    found = set()
    for seed in range(100):
        item = sample(counting(305), seed, **{"mfcc.npy": teacher_of(305)})
        (crop,), _, _ = data.item(item, training=True)
        start = int(crop.samples[0, 0]) - 1
        assert start % 10 == 0
        assert crop.teacher.tolist() == [list(range(start // 10, start // 10 + 10))] * 3
        found.add(start)
    assert found == set(range(0, 206, 10))


def test_features_are_padded_like_the_samples():
    data = AudioModule(TEACHER)
    items = [data.item(sample(counting(n), **{"mfcc.npy": teacher_of(n)}), training=False) for n in (35, 90)]
    batch = data.batch(items)
    assert batch["teacher"].shape == (2, 3, 9)
    assert batch["teacher"][0, 0].tolist() == [0, 1, 2, 3, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "no mfcc.npy"),
        ({"mfcc.npy": npy(np.zeros((5, 2, 2)))}, "not numbers of"),
        ({"mfcc.npy": npy(np.ones((2, 2), int))}, "not numbers of"),
        ({"mfcc.npy": npy(np.full((3, 20), np.nan))}, "not finite"),
        ({"mfcc.npy": npy(np.ones((3, 40)))}, r"has 40 frames, and a sound of 200 samples has 20"),
        ({"mfcc.npy": npy(np.ones((3, 10)))}, r"has 10 frames"),
    ],
)
def test_a_sample_without_usable_features_is_a_bad_sample(members, message):
    with pytest.raises(DecodeError, match=message):
        AudioModule(TEACHER).item(sample(counting(200), **members), training=True)


def test_features_of_a_whole_clip_go_along_as_they_are():
    data = AudioModule(replace(CONFIG, teacher="minilm", crops=2, batch_size=4))
    told = [np.arange(5, dtype=np.float32) + n for n in range(2)]
    for training, copies in ((True, 2), (False, 1)):
        items = [data.item(sample(counting(305), n, **{"minilm.npy": npy(told[n])}), training) for n in range(2)]
        assert data.batch(items)["teacher"].tolist() == [one.tolist() for one in told] * copies


def test_features_of_two_teachers_in_one_batch_are_refused():
    data = AudioModule(TEACHER)
    members = [{"mfcc.npy": teacher_of(35)}, {"mfcc.npy": npy(np.ones((1, 4), np.float32))}]
    items = [data.item(sample(counting(35), **one), training=False) for one in members]
    with pytest.raises(ConfigError, match=r"mfcc.npy has shape \(3, 4\) in sample .*, and \(1, 4\)"):
        data.batch(items)


def test_features_that_the_set_lacks_or_has_at_another_rate_are_refused_at_the_start(shards, tmp_path):
    module(TEACHER, shards)
    with pytest.raises(ConfigError, match=r"no wavlm\.npy"):
        module(replace(TEACHER, teacher="wavlm"), shards)
    with ShardWriter(tmp_path / "train", kind="audio", provenance={"features": {"mfcc": {"rate": 50.0}}}) as writer:
        writer.add("a", {"flac": flac(counting(100)), "mfcc.npy": teacher_of(100)})
    with pytest.raises(ConfigError, match=r"teacher_rate=100.0.*50.0 frames"):
        module(replace(TEACHER, val_shards=str(tmp_path / "train")), tmp_path)


def test_a_teacher_whose_frames_are_no_whole_samples_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        replace(CONFIG, teacher="mfcc", teacher_rate=30.0)


def test_a_quiet_place_is_drawn_again_and_a_silent_clip_is_a_bad_sample():
    """audio.md trap 34: silence must become no NaN, and here no training crop either."""
    config = replace(CONFIG, min_loudness=-40.0)
    data = AudioModule(config)
    half = np.zeros((2000, 1), dtype=np.int16)
    half[1000:] = 20_000
    for seed in range(20):
        (crop,), _, _ = data.item(sample(half, seed), training=True)
        assert np.abs(crop.samples).max() == 20_000
    with pytest.raises(DecodeError, match="quieter than min_loudness=-40"):
        data.item(sample(np.zeros((2000, 1), np.int16)), training=True)
    short = np.full((5, 1), 20_000, dtype=np.int16)  # its padding is not what is measured
    assert data.item(sample(short), training=True)[0][0].length == 5


def test_a_set_of_pictures_is_refused(tmp_path):
    with ShardWriter(tmp_path / "train", kind="images") as writer:
        writer.add("a", {"png": b"", "cls": b"0"})
    with pytest.raises(ConfigError, match=r"holds cls, png; data\.name=audio reads wav, flac"):
        module(replace(CONFIG, val_shards=str(tmp_path / "train")), tmp_path)


@pytest.mark.parametrize(
    "fields", [{"seconds": 0.0}, {"crops": 0}, {"channels": 0}, {"val_seconds": -1.0}, {"sample_rate": 0}]
)
def test_senseless_numbers_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        replace(CONFIG, **fields)
