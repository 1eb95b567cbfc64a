"""Packs are read back by those they are for, and hold every document once."""

import pytest
import torch

from mmtok.export.pack import FORMATS
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export.packing import LENGTH, READERS, codes_of, documents_in, expected, go, read_megatron

pytest.importorskip("transformers")

FORM = {"datasets": "parquet"}


@pytest.mark.parametrize("form", READERS)
def test_each_format_is_read_back_by_its_own_reader(world, tmp_path, form):
    orders = [("text", "image"), ("image", "text"), ("audio",)]
    facts = go(
        world, tmp_path / "out", "codes-image", "codes-audio", to=FORM.get(form, form), length=LENGTH, orders=orders
    )
    rows = READERS[form](tmp_path / "out")
    assert len(rows) == facts.rows
    assert {len(row) for row in rows} == {LENGTH}
    wanted = [ids for order in orders for ids in expected(world, order).values()]
    assert len(wanted) == 32
    assert sorted(documents_in(rows, facts.eos, facts.pad)) == sorted(wanted)
    assert sum((row == facts.pad).sum() for row in rows) == facts.padding
    assert facts.padding < 0.2 * LENGTH * facts.rows


@pytest.mark.parametrize("form", ["megatron", "parquet", "webdataset"])
def test_without_a_length_each_row_is_a_document_in_the_order_of_the_set(world, tmp_path, form):
    go(world, tmp_path / "out", "codes-image", to=form, orders=[("text", "image")])
    rows = READERS[form](tmp_path / "out")
    assert [row.tolist() for row in rows] == list(expected(world, ("text", "image")).values())


def test_codes_come_back_out_of_a_pack(world, tmp_path):
    go(world, tmp_path / "out", "codes-image", orders=[("image", "text")])
    vocabulary, codes = Vocabulary.read(world / "vocab"), codes_of(world, "image")
    for row, (key, wanted) in zip(read_megatron(tmp_path / "out"), codes.items(), strict=True):
        parts = vocabulary.split(row)
        assert [name for name, _ in parts] == ["img", "text"], key
        assert torch.equal(vocabulary.from_ids([parts[0][1]], vocabulary.spec("img")).ids, wanted.ids)


def test_the_same_sets_give_the_same_bytes(world, tmp_path):
    for form in FORMATS:
        if form == "parquet":
            pytest.importorskip("pyarrow")
        if form == "litdata":
            pytest.importorskip("litdata")
        for turn in ("one", "two"):
            go(world, tmp_path / form / turn, "codes-image", "codes-audio", to=form, length=LENGTH)
        one, two = ({f.name: f.read_bytes() for f in (tmp_path / form / turn).iterdir()} for turn in ("one", "two"))
        assert one == two, form


def test_large_vocabularies_have_ids_of_four_bytes():
    from mmtok.export.pack import id_type

    # downstream.md 3.5: Megatron reads uint16 below 65,500 ids, not below 65,536.
    assert [id_type("megatron", size) for size in (65_499, 65_500, 65_536)] == ["uint16", "int32", "int32"]
    assert id_type("parquet", 1000) == id_type("litdata", 1000) == "int32"
