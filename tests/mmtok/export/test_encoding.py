"""Shards become shards of codes: each item's own codes, in the order of the source."""

import json

import numpy as np
import pytest
import torch
import webdataset

import mmtok
from datamodules.shards import ShardSet
from mmtok.export.bundle import write_bundle
from mmtok.export.golden import leaves_called
from mmtok.export.token_shards import TokenSet
from mmtok.export.tokenize_input import Preparer
from mmtok.export.tokenize_units import ShardUnits
from mmtok.tokenizers.budget import Quality, Tokens
from mmtok.tokenizers.fidelity import psnr
from tests.mmtok.export import tiny
from tests.mmtok.export.tokenizing import SIZES, go, read

MARGIN = 1e-4
pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_items_of_a_row_have_the_length_their_quality_takes(tmp_path):
    row, source = tiny.row_tokenizer(tmp_path / "row"), tiny.pictures(tmp_path / "source", 6)
    tokenizer, whole = mmtok.load(row), {}
    for number, count in enumerate(ShardSet.open(source).counts):
        for place in range(count):
            sample = ShardSet.open(source).read(number, place)
            whole[sample.key] = tokenizer.preprocess(sample.members["png"])
    x = torch.cat(list(whole.values()))
    figures = torch.stack([psnr(x, tokenizer.decode(tokenizer.encode(x, budget=Tokens(k))), torch.ones(6, 1, 16, 16))
                           for k in range(1, 7)])  # fmt: skip
    target = float(figures[2].median())
    go(row, source, tmp_path / "out", budget=f"psnr={target}")
    found = read(tmp_path / "out")
    lengths = torch.tensor([int(codes.lengths) for codes in found.values()])
    expected = tokenizer.encode(x, budget=Quality(psnr=target)).lengths
    assert lengths.tolist() == expected.tolist()
    assert len(set(lengths.tolist())) > 1
    assert all(codes.ids.shape == (1, 1, int(codes.lengths)) for codes in found.values())
    with pytest.raises(ValueError, match="is of another call: budget"):
        go(row, source, tmp_path / "out", budget="tokens=3")
    with pytest.raises(ValueError, match="budget=quality"):
        go(row, source, tmp_path / "no", budget="quality=3")
    with pytest.raises(ValueError, match="codes have one length"):
        go(tiny.row_tokenizer(tmp_path / "plain", nested="none"), source, tmp_path / "no", budget="tokens=3")


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
