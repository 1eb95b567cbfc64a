"""Layouts of several rows, and of ids from 0, in packs that can hold them; read back to the codes they are of."""

import json

import numpy as np
import pytest
import torch

import mmtok
from datamodules.decode import decode
from datamodules.shards import ShardSet
from mmtok.export.bundle import write_bundle
from mmtok.export.pack import pack
from mmtok.export.token_spec import Layout
from mmtok.export.vocab import merge
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export.packing import codes_of

pytest.importorskip("transformers")
KINDS = ("parallel", "own_head")


@pytest.fixture(scope="module")
def vocabularies(world, tmp_path_factory):
    """Kind -> folder of a vocabulary of the audio codes of the world, in this layout, and of its pictures, flat."""
    folder = tmp_path_factory.mktemp("layouts")
    for kind in KINDS:
        write_bundle(mmtok.load(str(world / "a")), folder / kind / "audio", layout=Layout(kind))
        merge(world / "base", [folder / kind / "audio", world / "image"], folder / kind / "vocab")
    return {kind: folder / kind / "vocab" for kind in KINDS}


def read_parquet(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(folder / "train-00000.parquet").to_pylist()
    return [(np.array(row["input_ids"]), row["lengths"], row["keys"]) for row in rows]


def read_datasets(folder):
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return [(np.array(row["input_ids"]), row["lengths"], row["keys"]) for row in data]


def read_webdataset(folder):
    shards = ShardSet.open(folder)
    found = [shards.read(0, number).members for number in range(len(shards))]
    facts = [decode("json", members["json"]) for members in found]
    ids = [decode("npy", members["ids.npy"]) for members in found]
    return [(one, said["lengths"], said["keys"]) for one, said in zip(ids, facts, strict=True)]


READERS = {"parquet": read_parquet, "datasets": read_datasets, "webdataset": read_webdataset}
FORM = {"datasets": "parquet"}


@pytest.mark.parametrize("length", [None, 64])
@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_come_back_out_of_a_pack_of_a_layout_of_its_own(world, vocabularies, tmp_path, kind, form, length):
    out = tmp_path / "out"
    sets, vocab = [str(world / "codes-audio")], vocabularies[kind]
    facts = pack(sets, vocab, out, to=FORM.get(form, form), length=length)
    vocabulary, codes, found = Vocabulary.read(vocab), codes_of(world, "audio"), {}
    spec = vocabulary.spec("aud")
    rows = READERS[form](out)
    for ids, lengths, keys in rows:
        assert ids.ndim == (2 if kind == "parallel" else 1)
        assert length in (None, ids.shape[-1])
        at = 0
        for key, n in zip(keys, lengths, strict=True):
            found[key] = torch.from_numpy(ids[..., at : at + n].astype(np.int64))
            at += n
        assert (ids[..., at:] == facts.pad).all()
    assert found.keys() == codes.keys()
    for key, wanted in codes.items():
        assert torch.equal(found[key], vocabulary.to_ids(wanted, spec)[0])
        assert torch.equal(vocabulary.from_ids([found[key]], spec).ids, wanted.ids)
    assert facts.tokens == sum(ids.numel() for ids in found.values())
    assert facts.tokens + facts.padding == sum(ids.size for ids, _, _ in rows)
    said = json.loads((out / "pack.json").read_text())
    assert (said["layout"], said["eos"], said["rows"]) == (kind, None, len(rows))


def test_ids_of_a_head_of_their_own_begin_at_0_and_padding_is_no_id(world, vocabularies, tmp_path):
    facts = pack([str(world / "codes-audio")], vocabularies["own_head"], tmp_path / "o", to="webdataset", length=64)
    assert (facts.vocabulary_size, facts.pad, facts.dtype) == (32, -1, "int32")
    ids = np.concatenate([row for row, _, _ in read_webdataset(tmp_path / "o")])
    assert set(ids.tolist()) <= {-1, *range(32)}
    assert min(ids) == -1 < max(ids)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["megatron", "litdata"])
def test_formats_of_one_row_refuse_them_and_name_those_that_do_not(world, vocabularies, tmp_path, kind, form):
    with pytest.raises(ValueError, match=rf"'aud' out as {kind}, .*--to {form} holds\. Use --to parquet or webdataset"):
        pack([str(world / "codes-audio")], vocabularies[kind], tmp_path / "out", to=form, length=64)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orders", [[("text", "audio")], [("audio",), ("text",)], [("image",), ("audio",)]])
def test_they_are_packed_by_themselves(world, vocabularies, tmp_path, kind, orders):
    sets = [str(world / name) for name in ("codes-audio", "codes-image", "pictures")]
    with pytest.raises(ValueError, match=r"Pack it by itself: --order aud; the keys"):
        pack(sets, vocabularies[kind], tmp_path / "out", to="parquet", orders=orders)


def test_flat_parts_of_the_same_vocabulary_are_packed_as_ever(world, vocabularies, tmp_path):
    facts = pack([str(world / "codes-image")], vocabularies["parallel"], tmp_path / "o", to="megatron")
    assert (facts.layout, facts.rows) == ("flat", 11)
