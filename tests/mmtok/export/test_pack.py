"""Packs are read back by those they are for, and hold every document once."""

import itertools
import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

import mmtok
from datamodules.shards import ShardSet
from mmtok.cli import main
from mmtok.export.bundle import write_bundle
from mmtok.export.documents import Document, Keyed
from mmtok.export.encoding import Settings
from mmtok.export.pack import FORMATS, Facts, fill, pack
from mmtok.export.token_shards import TokenSet
from mmtok.export.token_spec import TokenSpec
from mmtok.export.tokenize_job import Part, tokenize
from mmtok.export.vocab import load_base, merge
from mmtok.export.vocab_map import Vocabulary
from tests.mmtok.export import tiny

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("transformers")

LENGTH = 128
TEXT_IN_MARKUP = "a <|img_start|> is <|endoftext|> no picture"


def write_text_base(folder):
    """A byte-level BPE with an end of text and a pad."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    names = ["<|endoftext|>", "<|pad|>"]
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=names)
    made.train_from_iterator(["picture number sound"], trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": names[0], "pad_token": names[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Bundles, a vocabulary of both, sets of codes and their sources: items 0-9 with pictures, 5-14 with sounds."""
    folder = tmp_path_factory.mktemp("world")
    write_text_base(folder / "base")
    write_bundle(mmtok.load(tiny.image_tokenizer(folder / "i")), folder / "image", rows=True)
    write_bundle(mmtok.load(tiny.audio_tokenizer(folder / "a")), folder / "audio")
    merge(folder / "base", [folder / "image", folder / "audio"], folder / "vocab")
    tiny.pictures(
        folder / "pictures", 10, ((8, 8), (8, 12)), special={"png": tiny.png(8, 8, 99), "txt": TEXT_IN_MARKUP.encode()}
    )
    wavs = {f"item{i:03d}": {"wav": tiny.wav(200 + 20 * i, i)} for i in range(5, 15)}
    tiny.write_set(folder / "sounds", "audio", wavs)
    for name in ("image", "audio"):
        source = folder / ("pictures" if name == "image" else "sounds")
        settings = Settings(str(folder / name), str(source), folder / f"codes-{name}", batch=4, workers=0)
        tokenize(settings, ["cpu"], Part(), lambda line: None)
    return folder


def go(world, out, *sets, **options):
    return pack([str(world / one) for one in sets], world / "vocab", out, **{"to": "megatron"} | options)


def read_megatron(folder, name="train"):
    """By the published layout alone."""
    index, data = (folder / f"{name}.idx").read_bytes(), (folder / f"{name}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, kind = struct.unpack_from("<QB", index, 9)
    assert version == 1
    dtype = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}[kind]
    sequences, documents = struct.unpack_from("<QQ", index, 18)
    lengths = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    bounds = np.frombuffer(index, "<i8", documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert bounds.tolist() == list(range(sequences + 1))
    assert len(data) == int(lengths.sum()) * np.dtype(dtype).itemsize
    return [np.frombuffer(data, dtype, n, at).astype(np.int64) for n, at in zip(lengths, pointers, strict=True)]


def read_parquet(folder):
    parquet = pytest.importorskip("pyarrow.parquet")
    tables = [parquet.read_table(file) for file in sorted(folder.glob("*.parquet"))]
    return [np.array(ids) for table in tables for ids in table["input_ids"].to_pylist()]


def read_datasets(folder):
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return [np.array(row["input_ids"]) for row in data]


def read_webdataset(folder):
    import webdataset

    tars = sorted(map(str, folder.glob("*.tar")))
    samples = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
    return [one["ids.npy"].astype(np.int64) for one in samples]


def read_litdata(folder):
    pytest.importorskip("litdata")
    from litdata import StreamingDataset, TokensLoader

    data = StreamingDataset(str(folder), item_loader=TokensLoader(block_size=LENGTH), shuffle=False)
    return [np.asarray(data[i], dtype=np.int64) for i in range(len(data))]


READERS = {
    "megatron": read_megatron, "parquet": read_parquet, "datasets": read_datasets, "webdataset": read_webdataset,
    "litdata": read_litdata,
}  # fmt: skip
FORM = {"datasets": "parquet"}


def codes_of(world, name):
    found = TokenSet(ShardSet.open(world / f"codes-{name}"))
    places = [(shard, i) for shard, count in enumerate(found.shards.counts) for i in range(count)]
    samples = [found.shards.read(*place) for place in places]
    return {one.key: found.codes(one.members, one.key) for one in samples}


def expected(world, order):
    """Key -> ids of the document, made one by one."""
    vocabulary, tokenizer = Vocabulary.read(world / "vocab"), load_base(world / "base")
    tokenizer.backend_tokenizer.encode_special_tokens = True
    parts = {name: codes_of(world, name) for name in ("image", "audio")}
    texts = {}
    pictures = ShardSet.open(world / "pictures")
    for shard, count in enumerate(pictures.counts):
        for i in range(count):
            sample = pictures.read(shard, i)
            texts[sample.key] = sample.members["txt"].decode()
    found = {}
    for key in sorted({*texts, *parts["audio"]}):
        made = []
        for name in order:
            if name == "text" and key in texts:
                made.append(tokenizer.backend_tokenizer.encode(texts[key], add_special_tokens=False).ids)
            elif key in parts.get(name, {}):
                spec = vocabulary.spec({"image": "img", "audio": "aud"}[name])
                made.append(vocabulary.to_ids(parts[name][key], spec)[0].tolist())
        if len(made) == len(order):
            found[key] = [*itertools.chain(*made), tokenizer.eos_token_id]
    return found


def documents_in(rows, end, pad):
    """Documents of rows, cut at their ends; only padding may follow."""
    found = []
    for row in rows:
        ids = row.tolist()
        while end in ids:
            at = ids.index(end) + 1
            found.append(ids[:at])
            ids = ids[at:]
        assert set(ids) <= {pad}
    return found


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


def test_a_caption_cannot_begin_a_picture(world, tmp_path):
    go(world, tmp_path / "out", "codes-image", orders=[("text",)])
    vocabulary = Vocabulary.read(world / "vocab")
    rows = read_megatron(tmp_path / "out")
    assert all(row.max() < vocabulary.text for row in rows)
    assert all((row[:-1] != load_base(world / "base").eos_token_id).all() for row in rows)


def test_texts_come_from_another_set_and_keys_that_lack_a_part_are_counted(world, tmp_path):
    # The sounds have no texts of their own: items 5 to 9 have one in the pictures' source.
    facts = go(world, tmp_path / "out", "codes-audio", "pictures", orders=[("text", "audio")])
    rows = [row.tolist() for row in read_megatron(tmp_path / "out")]
    assert rows == list(expected(world, ("text", "audio")).values())
    assert (facts.keys, facts.documents, len(rows)) == (16, 5, 5)
    assert facts.missing == {"text,aud: aud": 6, "text,aud: text": 5}


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


def facts_of(length, pad=0):
    return Facts("megatron", length, "int32", 128, {}, [], None, 1, pad, [])


def test_only_a_document_longer_than_a_row_is_cut():
    generator = np.random.default_rng(0)
    documents = [Document(str(i), np.full(n, i + 1)) for i, n in enumerate(generator.integers(1, 70, 5000))]
    facts = facts_of(64)
    rows = list(fill(documents, facts, "split"))
    long = [one for one in documents if len(one.ids) > 64]
    assert facts.long == len(long) > 0
    seen = {}
    for row in rows:
        assert sum(row.lengths) <= len(row.ids) == 64
        at = 0
        for key, n in zip(row.keys, row.lengths, strict=True):
            assert (row.ids[at : at + n] == int(key) + 1).all()
            seen.setdefault(key, []).append(n)
            at += n
        assert (row.ids[at:] == 0).all()
    assert {key: sum(parts) for key, parts in seen.items()} == {one.key: len(one.ids) for one in documents}
    assert {key for key, parts in seen.items() if len(parts) > 1} == {one.key for one in long}
    assert 1 - sum(map(sum, seen.values())) / (64 * len(rows)) < 0.03


def test_long_documents_are_left_out_on_demand_and_counted():
    facts = facts_of(8)
    facts.tokens = 25
    rows = list(fill([Document("a", np.ones(5)), Document("b", np.ones(20))], facts, "drop"))
    assert [row.keys for row in rows] == [("a",)]
    assert (facts.long, facts.dropped, facts.tokens) == (1, 1, 5)


def test_codes_of_another_tokenizer_are_refused(world, tmp_path):
    # downstream.md 3.5: every shard carries the hash of its spec, and packing refuses a mismatch.
    other = tiny.image_tokenizer(tmp_path / "other", seed=1)
    settings = Settings(other, str(world / "pictures"), tmp_path / "codes", batch=4, workers=0)
    tokenize(settings, ["cpu"], Part(), lambda line: None)
    with pytest.raises(ValueError, match=r"holds codes of another tokenizer .*'img' has fingerprint="):
        pack([str(tmp_path / "codes")], world / "vocab", tmp_path / "out", to="megatron")
    assert not (tmp_path / "out").exists()


def test_a_spec_that_was_changed_is_refused(world, tmp_path):
    shutil.copytree(world / "codes-image", tmp_path / "codes")
    spec = TokenSpec.read(tmp_path / "codes")
    (tmp_path / "codes" / "token_spec.json").write_text(replace(spec, codebook_sizes=(128,)).to_json())
    with pytest.raises(ValueError, match="was made for the spec"):
        pack([str(tmp_path / "codes")], world / "vocab", tmp_path / "out", to="megatron")


def test_raw_codes_serve_another_layout_of_the_same_tokenizer(world, tmp_path):
    # Raw codes do not know of rows and headers: a vocabulary of other ones lays the same shards out its way.
    write_bundle(mmtok.load(str(world / "i")), tmp_path / "image", header=True, prefix="pic")
    merge(world / "base", [tmp_path / "image"], tmp_path / "vocab")
    pack([str(world / "codes-image")], tmp_path / "vocab", tmp_path / "out", to="megatron")
    vocabulary, codes = Vocabulary.read(tmp_path / "vocab"), codes_of(world, "image")
    for row, wanted in zip(read_megatron(tmp_path / "out"), codes.values(), strict=True):
        found = vocabulary.from_ids([row[:-1]], vocabulary.spec("pic"))
        assert torch.equal(found.ids, wanted.ids)
        assert found.grid == wanted.grid


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"orders": [("text", "video")]}, "'video' is in none of the sets. They have img, text"),
        ({"orders": [("text", "text")]}, "must name each part once"),
        ({"orders": [("text",), ("text",)]}, "says the same twice"),
        ({"to": "litdata"}, "give --length"),
        ({"length": 1}, "--length=1"),
        ({"eos": "<none>"}, "has no token '<none>'"),
        ({"orders": [("audio",)]}, "'audio' is in none of the sets"),
    ],
)
def test_what_makes_no_sense_is_refused(world, tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        go(world, tmp_path / "out", "codes-image", **options)
    assert not (tmp_path / "out").exists()


def test_a_layout_of_several_rows_is_refused(world, tmp_path):
    from mmtok.export.token_spec import Layout

    write_bundle(mmtok.load(str(world / "a")), tmp_path / "audio", layout=Layout("parallel"))
    merge(world / "base", [tmp_path / "audio"], tmp_path / "vocab")
    with pytest.raises(ValueError, match="'aud' out as parallel, which is no one row"):
        pack([str(world / "codes-audio")], tmp_path / "vocab", tmp_path / "out", to="megatron")


def test_the_verb_says_what_it_did_and_writes_nothing_over(world, tmp_path, capsys):
    words = ["pack", str(world / "codes-image"), "--vocab", str(world / "vocab"), "--to", "megatron", "--length", "24"]
    words += ["--order", "text,image", "--long", "split", "-o", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr()
    assert "11 documents, " in told.out
    assert "documents are longer than 24 ids: cut into rows" in told.err
    assert json.loads((tmp_path / "out" / "pack.json").read_text())["orders"] == ["text,img"]
    assert main(words) == 2
    assert "is a pack already. Give --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_half_a_picture_is_not_packed_unless_asked_for(world, tmp_path):
    orders = [("text",), ("text", "image")]
    facts = go(world, tmp_path / "out", "codes-image", length=24, orders=orders, to="parquet")
    assert 0 < facts.dropped == facts.long < facts.documents
    text = go(world, tmp_path / "text", "codes-image", length=4, orders=[("text",)], to="parquet")
    assert text.long > 0 == text.dropped


def test_nothing_left_is_told_with_the_reason(world, tmp_path):
    with pytest.raises(ValueError, match=r"documents are longer than 4 ids: give a larger --length\."):
        go(world, tmp_path / "out", "codes-image", length=4, orders=[("image",)])
    assert not (tmp_path / "out").exists()


def test_what_a_trainer_would_find_out_late_is_said(world, tmp_path):
    with pytest.warns(UserWarning, match=r"the sets have texts, and documents are of img\. See --order"):
        go(world, tmp_path / "out", "codes-image")


def test_large_vocabularies_have_ids_of_four_bytes():
    from mmtok.export.pack import id_type

    # downstream.md 3.5: Megatron reads uint16 below 65,500 ids, not below 65,536.
    assert [id_type("megatron", size) for size in (65_499, 65_500, 65_536)] == ["uint16", "int32", "int32"]
    assert id_type("parquet", 1000) == id_type("litdata", 1000) == "int32"


def write_repeating(folder, extension, counts=(3, 3)):
    """Shards with the same keys: text s.k of shard s, item k."""
    from datamodules.manifest import Manifest, Shard
    from datamodules.writer import ShardTar

    folder.mkdir()
    shards = []
    for number, count in enumerate(counts):
        tar = ShardTar(folder / f"s{number}.tar")
        for item in range(count):
            tar.add(f"{item:04d}", {extension: f"{number}.{item}".encode()})
        index, sha256 = tar.close()
        shards.append(Shard(name=f"s{number}", samples=count, bytes=index.tar_bytes, sha256=sha256))
    Manifest(kind="text", split="train", extensions=(extension,), shards=tuple(shards)).save(folder)
    return ShardSet.open(folder)


def test_keys_that_repeat_between_shards_keep_their_own_captions(world, tmp_path):
    write_repeating(tmp_path / "set", "txt")
    pack([str(tmp_path / "set")], world / "vocab", tmp_path / "out", to="megatron", orders=[("text",)])
    tokenizer = load_base(world / "base")
    said = [tokenizer.decode(row[:-1]) for row in read_megatron(tmp_path / "out")]
    assert said == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]


def test_a_repeated_key_is_never_found_in_another_shard(tmp_path):
    whole, less = (Keyed(write_repeating(tmp_path / name, "txt", n)) for name, n in (("a", (3, 3)), ("b", (2, 3))))
    assert less.find("0002", "s1", whole) == (1, 2)
    assert less.find("0002", "s0", whole) is None
    with pytest.raises(ValueError, match=r"keys repeat between shards of .*has no shard 'other'"):
        less.find("0002", "other", whole)


def test_an_error_of_reading_ends_a_pack_instead_of_thinning_it(world, tmp_path, monkeypatch):
    def read(self, *args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ShardSet, "read", read)
    with pytest.raises(OSError, match=r"item000 in train-000000 cannot be read: .*Input/output error"):
        go(world, tmp_path / "out", "codes-image")
    assert not (tmp_path / "out").exists()
