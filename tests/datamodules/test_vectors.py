"""Vectors: from .npy and .parquet to shards, to batches, and to the sample a tokenizer is fitted on."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from datamodules.base import datamodules
from datamodules.build import build_shards
from datamodules.decode import DecodeError
from datamodules.reader import BadDataError
from datamodules.shards import ShardSet
from datamodules.vectoritem import as_vector, read_items
from datamodules.verify import verify
from datamodules.writer import ShardWriter
from mmtok.schema import ConfigError

KEYS = ["g++", "g", "libstdc++6", "a.b", "a_b", *(f"item {i}" for i in range(45))]


@pytest.fixture
def array():
    return np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


@pytest.fixture
def built(array, tmp_path):
    return build(array, tmp_path)


def build(array, tmp_path, keys=KEYS, **options):
    np.save(tmp_path / "x.npy", array)
    (tmp_path / "keys.txt").write_text("\n".join(keys) + "\n")
    return build_shards(str(tmp_path / "x.npy"), tmp_path / "out", keys=str(tmp_path / "keys.txt"), **options)


def module(shards, **fields):
    return datamodules.build({"name": "vectors", "shards": str(shards), "workers": 0, **fields})


def everything(out):
    return {one.key: one.vector for split in ("train", "val") for one in read_items(ShardSet.open(out / split))}


def test_every_row_is_in_one_set_under_its_own_key(built, array):
    found = everything(built.out)
    assert built.samples == 50
    assert {key: list(found[key]) for key in KEYS} == {key: list(row) for key, row in zip(KEYS, array, strict=True)}


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_floats_become_float32(array, tmp_path, dtype):
    build(array.astype(dtype), tmp_path)
    for key, vector in everything(tmp_path / "out").items():
        assert vector.dtype == np.float32
        assert np.array_equal(vector, array[KEYS.index(key)].astype(dtype).astype(np.float32))


def test_bad_rows_are_left_out_by_name(array, tmp_path):
    wide = array.astype(np.float64)
    wide[2, 1], wide[3, 0], wide[5, 3] = np.nan, np.inf, 1e300
    report = build(wide, tmp_path, keys=[*KEYS[:9], "g", *KEYS[10:]])
    assert dict(report.bad) == {
        "libstdc++6": "1 of its 8 numbers are not finite in float32",
        "a.b": "1 of its 8 numbers are not finite in float32",
        KEYS[5]: "1 of its 8 numbers are not finite in float32",
        "g (row 9)": "row 1 has this key already",
    }
    assert json.loads((tmp_path / "out" / "left_out.json").read_text()) == dict(report.bad)


def test_equal_vectors_are_counted(array, tmp_path):
    array[10:13] = array[20]
    report = build(array, tmp_path, val_fraction=0)
    assert report.sets["train"].provenance["exact_duplicates"] == 3
    assert report.sets["train"].provenance["width"] == 8


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.array([{}, None]), "plain numbers"),
        (np.arange(6).reshape(2, 3), "int64"),
        (np.zeros(4, np.float32), "shape"),
        (np.zeros((0, 4), np.float32), "shape"),
        (np.zeros((2, 2), np.complex64), "complex64"),
        (b"", "plain numbers"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (9, 9), }", "plain numbers"),
    ],
    ids=["objects", "integers", "one axis", "no rows", "complex", "no bytes", "cut short"],
)
def test_files_that_are_no_vectors_are_refused_by_name(tmp_path, content, said):
    path = tmp_path / "x.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(ValueError, match=said) as caught:
        build_shards(str(path), tmp_path / "out")
    assert str(path) in str(caught.value)


def test_keys_of_another_number_are_refused(array, tmp_path):
    with pytest.raises(ValueError, match="49 lines, and there are 50 vectors"):
        build(array, tmp_path, keys=KEYS[:-1])


def table(tmp_path, **columns):
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    return str(tmp_path / "x.parquet")


@pytest.mark.parametrize("fixed", [True, False])
def test_parquet_of_lists(array, tmp_path, fixed):
    kind = pa.list_(pa.float32(), 8) if fixed else pa.list_(pa.float64())
    source = table(tmp_path, name=KEYS, emb=pa.array(list(array), kind), group=["a", "b"] * 25)
    report = build_shards(source, tmp_path / "out", column="emb", key_column="name", label_column="group")
    assert report.sets["train"].classes == ("a", "b")
    found = everything(tmp_path / "out")
    assert all(np.array_equal(found[key], row) for key, row in zip(KEYS, array, strict=True))


def test_ragged_and_missing_rows_of_parquet_are_left_out_by_name(tmp_path):
    rows = [[1.0, 2.0], [1.0], None, [1.0, None], *([[0.5, 0.25]] * 6)]
    report = build_shards(table(tmp_path, key=list("abcdefghij"), vector=rows), tmp_path / "out")
    assert {key: reason.split(" ", 2)[2] for key, reason in report.bad if key != "d"} == {
        "b": "has 1 numbers, most others 2",
        "c": "has no vector",
    }
    assert dict(report.bad)["d"] == "1 of its 2 numbers are not finite in float32"


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"emb": [[1.0]]}, {}, "has no column vector or embedding"),
        ({"emb": [[1.0]]}, {"column": "enb"}, "Did you mean emb"),
        ({"vector": [[1.0]]}, {"key_column": "id"}, "no column for --key-column id"),
        ({"vector": [1.0]}, {}, "neither texts nor lists"),
        ({"vector": [[1]]}, {}, "holds int64"),
        ({"vector": [[1.0]]}, {"keys": "k.txt"}, "--keys says nothing about a .parquet"),
    ],
)
def test_columns_that_are_not_there_are_named(tmp_path, columns, options, said):
    with pytest.raises(ValueError, match=said):
        build_shards(table(tmp_path, **columns), tmp_path / "out", **options)


def test_what_is_no_parquet_is_refused(tmp_path):
    whole = Path(table(tmp_path, key=KEYS, vector=[[1.0, 2.0]] * len(KEYS))).read_bytes()
    damaged = {"no Parquet file": (b"", whole[:-30], b"x" * 99), "damaged": (b"PAR1" + b"\xff" * 400 + whole[404:],)}
    for said, contents in damaged.items():
        for content in contents:
            (tmp_path / "x.parquet").write_bytes(content)
            with pytest.raises(ValueError, match=rf"x.parquet is {said}"):
                build_shards(str(tmp_path / "x.parquet"), tmp_path / "out")


def test_batches_are_finite_float32_with_keys(built):
    batch = next(iter(module(built.out / "train", batch_size=8).train_dataloader()))
    assert batch["x"].shape == (8, 8)
    assert batch["x"].dtype == torch.float32
    assert set(batch["key"]) <= set(KEYS)
    assert batch["label"].tolist() == [-1] * 8


def test_sample_is_the_same_each_time_whatever_the_shards(array, tmp_path):
    found = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "x.npy", array)
        build_shards(str(folder / "x.npy"), folder / "out", val_fraction=0)
        sample = module(folder / "out" / "train", sample_items=30).sample(seed=1)
        chunks = list(sample)
        assert torch.equal(torch.cat(chunks), torch.cat(list(sample)))
        assert (sample.items, sample.of_items, len(sample)) == (30, 50, 30)
        found.append(sample.facts())
    assert found[0] == found[1]
    other = module(tmp_path / "one" / "out" / "train", sample_items=30).sample(seed=2)
    list(other)
    assert other.sha256 != found[0]["sha256"]


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.array([1, np.nan, 3], np.float32), "1 of its 3 numbers are not finite"),
        (np.zeros(4, np.float32), "has 4 numbers, the others 3"),
        (np.zeros((3, 1), np.float32), "no vector"),
        (np.zeros(3, np.int32), "int32 is no type of vectors"),
    ],
)
def test_what_is_no_vector_is_refused_by_name(vector, said):
    with pytest.raises(DecodeError, match=said):
        as_vector(vector, 3)


def written(folder, vectors):
    with ShardWriter(folder, kind="vectors", split="train") as writer:
        for i, vector in enumerate(vectors):
            path = folder / "v.tmp"
            with path.open("wb") as file:
                np.save(file, vector)
            writer.add(f"k{i:03d}", {"npy": path.read_bytes()})
            path.unlink()
    return folder


def test_bad_vectors_of_a_set_fill_no_slot_and_stop_a_sample(tmp_path):
    good, bad = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    home = written(tmp_path / "some", [good] * 60 + [bad] * 4)
    loader = module(home, batch_size=16, val_shards=str(home)).train_dataloader()
    batches = [batch for batch, _ in zip(loader, range(4), strict=False)]
    assert all(bool(batch["x"].isfinite().all()) for batch in batches)
    sample = module(home).sample(0)
    assert sum(len(chunk) for chunk in sample) == 60
    assert sample.facts()["unreadable"] == 4
    assert "WARNING: 4 vectors" in sample.told()[0]
    with pytest.raises(BadDataError, match="cannot be used"):
        list(module(written(tmp_path / "most", [good] * 20 + [bad] * 40)).sample(0))


def test_sets_of_different_widths_are_refused_before_training(tmp_path):
    narrow = written(tmp_path / "narrow", [np.ones(3, np.float32)] * 4)
    wide = written(tmp_path / "wide", [np.ones(4, np.float32)] * 4)
    with pytest.raises(ConfigError, match=r"wide holds vectors of 4 numbers; .*narrow says 3"):
        module(narrow, val_shards=str(wide)).plan(seed=0, accumulate=1)
    with pytest.raises(ConfigError, match=r"narrow holds vectors of 3 numbers; data.width says 5"):
        module(narrow, width=5).sample(0)


def test_verify_names_vectors_that_are_none(built, tmp_path):
    assert verify(ShardSet.open(built.out / "train")).ok
    info = ShardSet.open(built.out / "train").info()
    assert (info["width"], info["exact duplicates"]) == (8, 0)
    bad = [np.ones(4, np.float32), np.full(4, np.inf, np.float32), np.ones((2, 2), np.float32), np.ones(4, np.int64)]
    report = verify(ShardSet.open(written(tmp_path / "bad", bad)))
    assert not report.ok
    assert {(one.name, one.category) for one in report.findings} == {(f"k00{i}", "undecodable") for i in (1, 2, 3)}
