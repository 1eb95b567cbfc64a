"""Shards become shards of codes: each item's own codes, exactly once, whatever stops the job."""

import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
import webdataset

import mmtok
from datamodules.manifest import MANIFEST
from datamodules.shards import ShardSet
from datamodules.writer import ShardTar
from mmtok.cli import main
from mmtok.export.bundle import write_bundle
from mmtok.export.encoding import Lock, Settings
from mmtok.export.golden import leaves_called
from mmtok.export.token_shards import Plan, TokenSet, stands
from mmtok.export.tokenize_input import Preparer, ShardUnits
from mmtok.export.tokenize_job import Part, tokenize
from tests.mmtok.export import tiny

MARGIN = 1e-4
WHOLE = Part()
SIZES = ((16, 16), (16, 22), (9, 33))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return tiny.image_tokenizer(tmp_path_factory.mktemp("image") / "tokenizer")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    return tiny.audio_tokenizer(tmp_path_factory.mktemp("audio") / "tokenizer")


def go(tokenizer, shards, out, devices=("cpu",), part=WHOLE, **more):
    settings = Settings(tokenizer, str(shards), out, **{"batch": 3, "workers": 0} | more)
    return tokenize(settings, list(devices), part, lambda line: None)


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def read(folder):
    """Key -> codes, in the order of the set."""
    codes = TokenSet(ShardSet.open(folder))
    found = {}
    for shard, count in enumerate(codes.shards.counts):
        for sample in range(count):
            one = codes.shards.read(shard, sample)
            found[one.key] = codes.codes(one.members, one.key)
    return found


def assert_codes_are_those_of_each_alone(tokenizer, source, found, content):
    """The same ids wherever the best code was best by more than the rounding of another batch (export)."""
    source, checked = ShardSet.open(source), 0
    for shard, count in enumerate(source.counts):
        for number in range(count):
            sample = source.read(shard, number)
            with torch.inference_mode(), leaves_called(tokenizer.quantizer) as calls:
                alone = tokenizer.encode(tokenizer.preprocess(sample.members[content]))
            sure = torch.cat([leaf.margins(z) for leaf, z in calls]) > MARGIN
            codes = found[sample.key]
            assert codes.grid == alone.grid
            assert codes.source_size.tolist() == alone.source_size.tolist()
            assert torch.equal(codes.ids[0][sure], alone.ids[0][sure])
            checked += int(sure.sum())
    assert checked > 100


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_of_any_size_have_the_codes_they_have_alone(image, tmp_path, workers):
    source = tiny.pictures(tmp_path / "source", 10, SIZES)
    total = go(image, source, tmp_path / "out", workers=workers)
    assert (total.items, total.shards, total.bad, total.missing) == (10, 3, [], 0)
    assert_codes_are_those_of_each_alone(mmtok.load(image), source, read(tmp_path / "out"), "png")


@pytest.mark.parametrize("fields", [{}, {"normalize": "rms"}, {"encoder": tiny.SEANET | {"causal": False}}])
def test_padded_sounds_have_the_codes_they_have_alone(tmp_path, fields):
    # audio.md trap 28, and downstream.md 3.2: a library gave other codes in a batch than alone.
    tokenizer = tiny.audio_tokenizer(tmp_path / "tokenizer", **fields)
    source = tiny.sounds(tmp_path / "source", 10)
    go(tokenizer, source, tmp_path / "out")
    found = read(tmp_path / "out")
    assert_codes_are_those_of_each_alone(mmtok.load(tokenizer), source, found, "wav")
    assert (set(next(iter(found.values())).extras) == {"gain"}) == ("normalize" in fields)


def test_a_bundle_gives_its_own_spec_and_the_decoder_is_not_needed(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 4)
    write_bundle(mmtok.load(image), tmp_path / "bundle", part="encoder", prefix="pic")
    go(str(tmp_path / "bundle"), source, tmp_path / "out")
    assert TokenSet(ShardSet.open(tmp_path / "out")).spec.prefix == "pic"
    go(image, source, tmp_path / "other")
    ours, other = read(tmp_path / "out"), read(tmp_path / "other")
    assert all(torch.equal(ours[key].ids, other[key].ids) for key in other)


def test_fit_scales_and_cuts_as_the_tokenizers_own_preprocessing(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 3, SIZES)
    go(image, source, tmp_path / "out", size="fit")
    tokenizer, found = mmtok.load(image), read(tmp_path / "out")
    for number in range(3):
        sample = ShardSet.open(source).read(0, number)
        alone = tokenizer.encode(tokenizer.preprocess(sample.members["png"], fit=True))
        assert torch.equal(found[sample.key].ids, alone.ids)
    assert json.loads((tmp_path / "out" / "tokens.json").read_text())["size"] == "fit"


def test_codes_stand_in_the_order_of_the_source_with_what_was_kept_and_webdataset_reads_them(audio, tmp_path):
    source = tiny.sounds(tmp_path / "source", 6, each=6)
    go(audio, source, tmp_path / "out")
    samples = list(
        webdataset.WebDataset(
            str(tmp_path / "out" / "train-000000.tar"), shardshuffle=False, empty_check=False
        ).decode()
    )
    assert [one["__key__"] for one in samples] == [f"item{i:03d}" for i in range(6)]
    assert [one["txt"] for one in samples] == [f"sound number {i}" for i in range(6)]
    first = samples[0]
    assert first["codes.npy"].dtype == np.uint16
    assert first["codes.npy"].shape == (2, 10)  # 200 samples, 20 a frame
    assert first["codes.json"]["source_size"] == [200]
    assert first["codes.json"]["spec"] == TokenSet(ShardSet.open(tmp_path / "out")).sha256


def test_a_budget_keeps_the_first_levels_only(audio, tmp_path):
    source = tiny.sounds(tmp_path / "source", 4)
    go(audio, source, tmp_path / "out", budget=1)
    go(audio, source, tmp_path / "all")
    kept, whole = read(tmp_path / "out"), read(tmp_path / "all")
    assert all(codes.ids.shape[1] == 1 and torch.equal(codes.ids, whole[key].ids[:, :1]) for key, codes in kept.items())
    with pytest.raises(ValueError, match="budget=3"):
        go(audio, source, tmp_path / "no", budget=3)


def killed(tokenizer, source, out, after):
    """Die in the middle of a tar, as by SIGKILL."""
    added = ShardTar.add
    count = 0

    def add(self, key, members):
        nonlocal count
        count += 1
        if count > after:
            self._file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        added(self, key, members)

    ShardTar.add = add
    torch.set_num_threads(1)
    go(tokenizer, source, out)


def test_a_job_that_was_killed_goes_on_and_leaves_the_same_bytes(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14, SIZES)
    go(image, source, tmp_path / "whole")
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(image, source, out, 9))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (out / MANIFEST).exists()
    left = (out / "train-000000.tar").stat().st_mtime_ns
    total = go(image, source, out, workers=1)
    assert (total.stood, total.items) == (2, 6)
    assert (out / "train-000000.tar").stat().st_mtime_ns == left
    assert contents(out) == contents(tmp_path / "whole")


def test_a_finished_shard_that_is_damaged_is_written_again(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 10), tmp_path / "out"
    go(image, source, out)
    before = contents(out)
    tar = out / "train-000001.tar"
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    assert stands(out, "train-000001") is None
    assert go(image, source, out).items == 4
    assert contents(out) == before
    assert go(image, source, out).items == 0


def test_parts_and_devices_meet_in_one_manifest(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14)
    go(image, source, tmp_path / "whole")
    out = tmp_path / "out"
    first = go(image, source, out, part=Part(0, 2))
    assert (first.shards, first.missing) == (2, 2)
    assert not (out / MANIFEST).exists()
    second = go(image, source, out, part=Part(1, 2))
    assert (second.shards, second.missing) == (2, 0)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.slow
def test_two_devices_share_the_shards(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 14)
    go(image, source, tmp_path / "whole")
    assert go(image, source, tmp_path / "out", devices=("cpu", "cpu")).items == 14
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_shard_that_another_process_writes_is_left_to_it(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 8), tmp_path / "out"
    out.mkdir()
    other = Lock(out, "train-000000")
    total = go(image, source, out)
    assert (total.items, total.missing, total.failed) == (4, 1, [])
    other.release()
    assert go(image, source, out).items == 4


@pytest.mark.parametrize(
    ("variables", "part"),
    [
        ({}, Part(0, 1)),
        ({"ID": 3, "COUNT": 8, "MIN": 0, "MAX": 7, "STEP": 1}, Part(3, 8)),
        ({"ID": 5, "COUNT": 3, "MIN": 1, "MAX": 5, "STEP": 2}, Part(2, 3)),
    ],
)
def test_a_task_of_a_slurm_array_takes_its_part(variables, part):
    assert Part.of({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()}) == part


def test_an_array_of_some_tasks_of_another_must_say_its_parts():
    variables = {"ID": 7, "COUNT": 2, "MIN": 3, "MAX": 7, "STEP": 1}
    with pytest.raises(ValueError, match=r"2 tasks from 3 to 7.*--part"):
        Part.of({f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in variables.items()})
    for wrong in ("4/4", "1", "a/b"):
        with pytest.raises(ValueError, match="is no part"):
            Part.parse(wrong)


def test_bad_samples_are_left_out_counted_and_named(image, tmp_path, capsys):
    bad = {"broken": {"png": b"no picture"}, "empty": {"txt": b"only a text"}}
    source = tiny.pictures(tmp_path / "source", 6, **bad)
    assert main(["tokenize", image, source, str(tmp_path / "out"), "--workers", "0", "--devices", "cpu"]) == 0
    told = capsys.readouterr()
    assert "left out broken in train-000001: " in told.err
    assert "left out empty in train-000001: no picture among ['txt']" in told.err
    assert "2 samples left out" in told.err
    assert "6 items" in told.out
    assert ShardSet.open(tmp_path / "out").manifest.provenance["bad"] == 2
    assert len(read(tmp_path / "out")) == 6


def test_a_shard_of_which_nothing_can_be_used_fails_and_the_others_do_not(image, tmp_path, capsys):
    source = tiny.pictures(tmp_path / "source", 8)
    with open(f"{source}/train-000000.tar", "ab") as file:
        file.write(b"more")
    assert main(["tokenize", image, source, str(tmp_path / "out"), "--workers", "0", "--devices", "cpu"]) == 2
    told = capsys.readouterr().err
    assert "not written: train-000000: " in told
    assert "1 shards could not be written" in told
    assert stands(tmp_path / "out", "train-000001")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_a_folder_of_another_call_is_refused(image, tmp_path):
    source = tiny.pictures(tmp_path / "source", 4)
    go(image, source, tmp_path / "out")
    with pytest.raises(ValueError, match="of another call: batch 3 there and 2 here"):
        go(image, source, tmp_path / "out", batch=2)
    other = tiny.image_tokenizer(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="fingerprint"):
        go(other, source, tmp_path / "out")


def test_what_is_for_something_else_is_refused(image, audio, tmp_path):
    source = tiny.pictures(tmp_path / "source", 4)
    with pytest.raises(ValueError, match=r"holds png, txt, and .* is for audio"):
        go(audio, source, tmp_path / "out")
    with pytest.raises(ValueError, match="--size fit is for pictures"):
        go(audio, source, tmp_path / "out", size="fit")
    write_bundle(mmtok.load(image), tmp_path / "half", part="decoder")
    with pytest.raises(ValueError, match="exported without its encoder"):
        go(str(tmp_path / "half"), source, tmp_path / "out")
    with pytest.raises(ValueError, match="holds images, no codes"):
        TokenSet(ShardSet.open(source))
    assert not (tmp_path / "out").exists()


def test_a_batch_never_spans_two_shards_and_sounds_are_bucketed_by_length(audio, tmp_path):
    source = ShardSet.open(tiny.sounds(tmp_path / "source", 10, each=5))
    prepare = Preparer.of(mmtok.load(audio), "own", 2)
    units = list(ShardUnits(source, [0, 1], prepare, ()))
    assert [unit.shard for unit in units] == [0, 0, 0, 1, 1, 1]
    assert [unit.last for unit in units] == [False, False, True] * 2
    lengths = [length for unit in units[:3] for block in unit.blocks for length in block.lengths.tolist()]
    assert lengths == sorted(lengths)
    padded = sum(block.x.shape[0] * block.x.shape[2] for unit in units for block in unit.blocks)
    own = sum(int(block.lengths.sum()) for unit in units for block in unit.blocks)
    assert padded < 1.2 * own


def test_long_sounds_share_a_batch_with_fewer(audio):
    prepare = Preparer.of(mmtok.load(audio), "own", 4)
    second = prepare.rate
    items = [(i, torch.zeros(1, 1, second * length)) for i, length in enumerate([5, 5, 5, 5, 5, 30, 35])]
    assert [block.numbers for block in prepare.blocks(items)] == [[0, 1, 2, 3], [4], [5], [6]]


def test_a_passing_error_of_reading_leaves_the_shard_to_the_next_job(image, tmp_path, monkeypatch):
    source, out, whole = tiny.pictures(tmp_path / "source", 8), tmp_path / "out", ShardSet.read

    def fail(self, shard, sample, extensions=None):
        if (shard, sample) == (0, 1):
            raise OSError(5, "Input/output error")
        return whole(self, shard, sample, extensions)

    with monkeypatch.context() as patch:
        patch.setattr(ShardSet, "read", fail)
        total = go(image, source, out)
    assert (total.failed, total.bad) == (["train-000000: item001: [Errno 5] Input/output error"], [])
    assert not (out / MANIFEST).exists()
    assert go(image, source, out).items == 4
    assert len(read(out)) == 8


def test_no_manifest_stands_over_a_shard_that_was_cut(image, tmp_path):
    source, out = tiny.pictures(tmp_path / "source", 8), tmp_path / "out"
    go(image, source, out, part=Part(0, 2))
    os.truncate(out / "train-000000.tar", 1024)
    with pytest.raises(ValueError, match=r"train-000000\.tar is not as it was written"):
        go(image, source, out, part=Part(1, 2))
    assert not (out / MANIFEST).exists()
    go(image, source, out, part=Part(0, 2))
    assert len(read(out)) == 8


def test_of_two_calls_that_begin_at_once_one_has_the_folder(tmp_path, monkeypatch):
    plans = [Plan("t", "f", "s", "set", "m", "own", batch, None, ()) for batch in (2, 3)]
    link = os.link

    def late(draft, path):  # the other one comes between the look and the write
        monkeypatch.setattr(os, "link", link)
        plans[0].claim(tmp_path)
        link(draft, path)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(ValueError, match="batch 2 there and 3 here"):
        plans[1].claim(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokens.json"]
