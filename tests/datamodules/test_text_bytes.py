"""Documents as crops of bytes: whole characters, cut by draws that belong to the slot, padded at the end."""

import numpy as np
import pytest

from datamodules.base import datamodules
from datamodules.build import build_shards
from datamodules.stream import BatchStream
from datamodules.text_bytes import whole_characters


@pytest.fixture
def shards(tmp_path):
    for language, text in (("en", "word after word, "), ("ja", "言葉の後に言葉")):
        home = tmp_path / "texts" / language
        home.mkdir(parents=True)
        for i in range(12):
            (home / f"{i}.txt").write_text(f"{i} {text * (1 + 3 * i)}".strip(), encoding="utf-8")
    build_shards(str(tmp_path / "texts"), tmp_path / "shards")
    return tmp_path / "shards"


def module(shards, **fields):
    return datamodules.build(
        {"name": "text_bytes", "shards": str(shards / "train"), "workers": 0, "bytes": 48, "batch_size": 4,
         "streams": 4, **fields}
    )  # fmt: skip


def stream(data, *, rank=0, world=1, start=0):
    made = BatchStream(
        data.training_sets(), data.config, lambda sample: data.item(sample, training=True), data.batch,
        seed=0, rank=rank, world=world, start_update=start, extensions=data.extensions,
    )  # fmt: skip
    return iter(made)


def texts_of(batch):
    rows = zip(batch["x"], batch["lengths"].tolist(), strict=True)
    return [bytes(row[0, :size].tolist()).decode() for row, size in rows]


def test_crops_are_whole_characters_of_the_document_padded_by_zeros(shards):
    batches = stream(module(shards))
    for batch in (next(batches) for _ in range(8)):
        assert batch["x"].shape == (4, 1, 48)
        assert batch["lengths"].min() > 0
        for row, size, text, language in zip(
            batch["x"], batch["lengths"].tolist(), texts_of(batch), batch["language"], strict=True
        ):
            assert not row[0, size:].any()
            assert size > 44 or "0 " in text or len(text) < 48
            assert text.isascii() == (language == "en")
    assert set(batch["label"].tolist()) <= {0, 1}


def test_crops_depend_on_the_slot_and_not_on_ranks_or_where_a_run_began(shards):
    data = module(shards)
    one = stream(data)
    whole = [texts_of(next(one)) for _ in range(6)]
    ranks = [stream(data, rank=rank, world=2) for rank in range(2)]
    for texts in whole:
        first, second = (texts_of(next(rank)) for rank in ranks)
        assert [text for pair in zip(first, second, strict=True) for text in pair] == texts
    later = stream(data, start=4)
    assert [texts_of(next(later)) for _ in range(2)] == whole[4:]


def test_a_document_is_cut_elsewhere_each_time(shards):
    batches = stream(module(shards))
    found = {}
    for batch in (next(batches) for _ in range(40)):
        for key, text in zip(batch["key"], texts_of(batch), strict=True):
            found.setdefault(key, set()).add(text)
    assert max(map(len, found.values())) > 3


def test_validation_takes_documents_from_their_beginning(shards):
    data = module(shards, val_bytes=100)
    for batch in data.val_dataloader():
        for text, size in zip(texts_of(batch), batch["lengths"].tolist(), strict=True):
            assert text[0].isdigit()
            assert size <= 100


def test_whole_characters_never_grow_beyond_what_is_asked():
    data = np.frombuffer("aé漢🙂z".encode(), dtype=np.uint8)
    for start in range(len(data) + 1):
        for length in range(len(data) + 2):
            cut = whole_characters(data, start, length)
            cut.tobytes().decode()
            assert len(cut) <= length
    assert whole_characters(data, 0, len(data)).tobytes() == data.tobytes()


def test_a_crop_shorter_than_a_character_is_refused(shards):
    with pytest.raises(ValueError, match="bytes=3 must be at least 4, the longest character"):
        module(shards, bytes=3)
